"""Numbers and comparisons of two models as people read them: in the headline, the tables and the plots."""

from __future__ import annotations

import math

from optkit.report.base import Interval, Number
from optkit.report.schema import Delta

NAME_ENDS = (20, 36)  # characters kept of a long node name, from its start and its end
CANNOT_TELL = "faster or slower: cannot tell"
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def figure(value: Number) -> str:
    """Three significant digits, without exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def grouped(value: Number) -> str:
    """A whole number in groups of three digits."""
    return f"{round(value):,}".replace(",", "\u202f")


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
    change = accuracy_points(delta)
    return change if delta.top1_difference is None else f"{change}: {verdict(delta)}"


def accuracy_points(delta: Delta) -> str:
    """`accuracy −0.3 ± 0.8 points`."""
    if delta.other_images:
        return "accuracy not compared (other images)"
    if delta.top1_difference is None:
        return ""
    margin = ""
    if delta.top1_interval:
        widest = max(abs(bound - delta.top1_difference) for bound in delta.top1_interval)
        margin = f" ± {100 * widest:.1f}"
    return f"accuracy {points(delta.top1_difference)}{margin} points"


def speed_change(delta: Delta) -> str:
    """`2.1× faster`, as the bench's own verdict has it.

    Where it gave none, no more than the ratio: `1.30× the speed`.
    """
    if delta.speedup is None:
        return ""
    if delta.not_comparable:
        return f"latencies not comparable ({delta.not_comparable})"
    if delta.verdict == "cannot tell":
        return f"{CANNOT_TELL} ({speedup_interval(delta) or f'{delta.speedup:.2f}×'})"
    if delta.verdict:
        return f"{times(max(delta.speedup, 1 / delta.speedup))} {delta.verdict}"
    return f"{speed_ratio(delta.speedup)} the speed"


def speed_ratio(ratio: float) -> str:
    """`1.30×`."""
    return f"{ratio:.2f}×" if 0.1 <= ratio < 10 else f"{figure(ratio)}×"


def times(ratio: float) -> str:
    """`3.1×`; near 1 with as many digits as show the difference: `1.05×`, `1.003×`."""
    digits = 2 if ratio < 1.2 else 1 if ratio < 10 else 0
    if 1 < ratio < 1.02:
        digits = min(5, max(3, math.ceil(-math.log10(ratio - 1))))
    return f"{ratio:.{digits}f}×"


def speedup_interval(delta: Delta) -> str:
    """`0.97 – 1.04×` the speed of the reference."""
    if not delta.latency_interval or min(delta.latency_interval) <= 0:
        return ""
    low, high = delta.latency_interval
    return f"{factor(1 / high)} – {factor(1 / low)}×"


def factor(ratio: float) -> str:
    """A ratio of latencies; what a few rounds leave open can be without bounds."""
    if ratio >= 1000:
        return "over 1\u202f000"
    return "under 0.001" if ratio < 0.001 else f"{ratio:.3g}"


def p_value(value: float) -> str:
    """`p = 0.031`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def size_change(delta: Delta) -> str:
    """`74 % smaller`."""
    if delta.size_ratio is None:
        return ""
    change = round(100 * (delta.size_ratio - 1))
    return f"{abs(change)} % {'smaller' if change < 0 else 'larger'}" if change else "of the same size"


def runtimes(delta: Delta) -> str:
    """Where both were timed, and why there is no verdict: `onnxruntime against pytorch, not timed side by side`."""
    return ", ".join(filter(None, (where(delta), no_verdict(delta))))


def where(delta: Delta) -> str:
    """`in onnxruntime`, `onnxruntime against pytorch`."""
    same = delta.runtime == delta.reference_runtime
    return f"in {delta.runtime}" if same else f"{delta.runtime} against {delta.reference_runtime}"


def no_verdict(delta: Delta) -> str:
    """Why nothing is called faster, where two latencies are compared."""
    return delta.no_verdict if delta.speedup and not delta.not_comparable else ""
