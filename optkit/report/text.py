"""Numbers and comparisons as people read them: in the headline, the tables and the plots."""

from __future__ import annotations

from optkit.report.schema import Delta, Interval, Number, Report, Row

NAME_ENDS = (20, 36)  # characters kept of a long node name, from its start and its end
SAME_SPEED = 1.05  # below this ratio two latencies are called about the same
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def figure(value: Number) -> str:
    """Three significant digits, without exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def count(value: Number) -> str:
    """`4.01 M`."""
    for size, unit in UNITS:
        if abs(value) >= size:
            return f"{figure(value / size)} {unit}"
    return f"{value:g}"


def size(value: Number) -> str:
    """Bytes, in powers of 1,000: `12.3 MB`."""
    return f"{count(value)}B" if value >= 1000 else f"{value:g} B"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def interval(bounds: Interval) -> str:
    """`95.6 – 98.9 %`."""
    return f"{100 * bounds[0]:.1f} – {100 * bounds[1]:.1f} %"


def short_name(name: str) -> str:
    """A node's name, without its middle when it is long: `/features/features.1…/conv/Conv`."""
    first, last = NAME_ENDS
    return name if len(name) <= first + last + 1 else f"{name[:first]}…{name[-last:]}"


def decibels(value: float) -> str:
    """`24.3 dB`."""
    return f"{value:.1f} dB".replace("-", "−")


def decibel_change(value: float) -> str:
    """`+3.1 dB`."""
    return f"{value:+.1f} dB".replace("-", "−")


def points(share: float) -> str:
    """A difference of two shares, with its sign."""
    rounded = round(100 * share, 1)
    return "±0.0" if rounded == 0 else f"{rounded:+.1f}".replace("-", "−")


def points_interval(bounds: Interval) -> str:
    return f"{points(bounds[0])} … {points(bounds[1])}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def label(name: str, precision: str, format: str) -> str:
    """`int8 (INT8 ONNX)`."""
    formats = {"torch": "PyTorch", "onnx": "ONNX", "engine": "engine"}
    return f"{name} ({precision.upper()} {formats.get(format, format)})"


def verdict(delta: Delta) -> str:
    """What the interval of the accuracy difference allows to say."""
    if delta.top1_interval is None:
        return "no interval: the number of images is not known"
    low, high = delta.top1_interval
    if low <= 0 <= high:
        return f"no difference that {delta.n} images can show"
    return f"a {'gain' if low > 0 else 'loss'} that {delta.n} images show"


def accuracy_change(delta: Delta) -> str:
    """`accuracy −0.3 ± 0.8 points: no difference that 360 images can show`."""
    if delta.top1_difference is None:
        return ""
    margin = ""
    if delta.top1_interval:
        widest = max(abs(bound - delta.top1_difference) for bound in delta.top1_interval)
        margin = f" ± {100 * widest:.1f}"
    return f"accuracy {points(delta.top1_difference)}{margin} points: {verdict(delta)}"


def speed_change(delta: Delta) -> str:
    """`2.1× faster`; under 5 % of difference no more than `1.02× the speed`."""
    if delta.speedup is None:
        return ""
    ratio = max(delta.speedup, 1 / delta.speedup)
    if ratio < SAME_SPEED:
        return f"{delta.speedup:.2f}× the speed"
    return f"{ratio:.{1 if ratio < 10 else 0}f}× {'faster' if delta.speedup > 1 else 'slower'}"


def size_change(delta: Delta) -> str:
    """`74 % smaller`."""
    if delta.size_ratio is None:
        return ""
    change = round(100 * (delta.size_ratio - 1))
    return f"{abs(change)} % {'smaller' if change < 0 else 'larger'}" if change else "of the same size"


def runtimes(delta: Delta) -> str:
    """Where both were timed: `in onnxruntime`, `onnxruntime against pytorch`."""
    if delta.runtime == delta.reference_runtime:
        return f"in {delta.runtime}"
    return f"{delta.runtime} against {delta.reference_runtime}"


def headline_row(report: Report) -> Row | None:
    """The fastest timed model that shows no loss of accuracy against what it was made from.

    Without such a one, the fastest; among the rows of the smallest batch, the baseline excluded.
    """
    timed = [row for row in report.rows if row.computes and row.p50 is not None and row.top1 is not None]
    timed = [row for row in timed if row.batch == min(other.batch or 0 for other in timed)]
    others = [row for row in timed if row.name != report.baseline]

    def order(row: Row) -> tuple[bool, float]:
        delta = row.against_source or row.against_baseline
        lost = bool(delta and delta.top1_interval and delta.top1_interval[1] < 0)
        return lost, row.p50 or 0.0

    return min(others or timed, key=order, default=None)


def headline(report: Report) -> list[str]:
    """The result in one or two sentences, made of measured numbers."""
    row = headline_row(report)
    if row is None:
        return _accuracy_headline(report)
    name = label(row.name, row.precision, row.format)
    deltas = [delta for delta in (row.against_source, row.against_baseline) if delta]
    if not deltas:
        top1, p50 = percent(row.top1 or 0), figure(row.p50 or 0)
        return [f"{name}: {top1} top-1 and {p50} ms at batch {row.batch} in {row.runtime}."]
    first = deltas[0]
    speed, reference = speed_change(first), _reference(first)
    link = "of" if speed.endswith("speed") else "than"
    start = f"{speed} {link} {reference} {runtimes(first)}" if speed else f"against {reference}"
    sentences = [f"{name}: {_changes(first, start)}."]
    if len(deltas) == 2 and deltas[1].reference != first.reference:
        speed = f"{speed_change(deltas[1])} ({runtimes(deltas[1])})" if deltas[1].speedup else ""
        sentences.append(f"Against the baseline {_reference(deltas[1])}: {_changes(deltas[1], speed)}.")
    return sentences


def _accuracy_headline(report: Report) -> list[str]:
    """The best accuracy, where no latency was measured beside one."""
    known = [row for row in report.rows if row.computes and row.top1 is not None]
    if not known:
        return ["Nothing was benched with both a latency and an accuracy."]
    best = max(known, key=lambda row: row.top1 or 0)
    bounds = f" (95 %: {interval(best.top1_interval)})" if best.top1_interval else ""
    images = f" on {best.n:,} images".replace(",", "\u202f") if best.n else ""
    return [
        f"{label(best.name, best.precision, best.format)}: {percent(best.top1 or 0)} top-1{bounds}{images}."
    ]


def _reference(delta: Delta) -> str:
    return label(delta.reference, delta.reference_precision, delta.reference_format)


def _changes(delta: Delta, speed: str) -> str:
    return ", ".join(change for change in (speed, size_change(delta), accuracy_change(delta)) if change)
