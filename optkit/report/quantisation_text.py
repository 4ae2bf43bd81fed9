"""What quantisation did, in words: on the terminal, on the page and in Markdown."""

from __future__ import annotations

from optkit.report import text
from optkit.report.quantisation_schema import FloatPrefix, QuantizeBudget, Quantized, Rung, Speed, Validation

RUNTIMES = {"openvino": "OpenVINO", "tensorrt": "TensorRT"}


def judged_on(found: Quantized) -> str:
    """The images whose figures choose what is kept, beside those for validation."""
    return "held-out images" if found.set_aside else "calibration images"


def ladder_note(found: Quantized) -> str:
    """How the ladder was climbed, and which figures flatter therefore."""
    note = "Each rung starts from the last one kept. "
    if found.set_aside:
        note += "Held-out calibration images, which nothing was fitted to, choose what is kept."
    else:
        note += (
            "The calibration images are few, so the same ones served for fitting and for judging alike: "
            "figures on them flatter."
        )
    if found.budget and asked_for(found.budget):
        note += " Validation images say when to stop, so the last figure is chosen to that extent."
    return note


def loss_in_points(drop: float) -> str:
    """A drop of top-1 in points, with its sign turned into that of a difference: `−0.25`."""
    return "±0.00" if abs(drop) < 0.005 else f"{-drop:+.2f}".replace("-", "−")


def loss_interval(bounds: tuple[float, float]) -> str:
    """An interval of a drop in points, turned likewise: `−1.20 … +0.30`."""
    return f"{loss_in_points(bounds[1])} … {loss_in_points(bounds[0])}"


def level_db(decibels: float) -> str:
    """A figure in dB beside or below its unit: `−3.0`."""
    return f"{decibels:.1f}".replace("-", "−")


def asked_for(budget: QuantizeBudget) -> str:
    """`at most 0.5 points of top-1 lost, at least 98.5 % agreement`."""
    limits = []
    if budget.max_drop is not None:
        limits.append(f"at most {budget.max_drop:g} points of top-1 lost")
    if budget.min_agreement is not None:
        limits.append(f"at least {text.percent(budget.min_agreement)} agreement")
    if budget.min_sqnr is not None:
        limits.append(f"at least {text.decibels(budget.min_sqnr)}")
    return ", ".join(limits)


def outcome_line(found: Quantized) -> str:
    """`INT8 of onnx: 24.3 dB on held-out images, …; on validation images 23.9 dB, …; the budget holds.`"""
    reached = [rung for rung in found.ladder if rung.kept and rung.sqnr_db is not None]
    parts = []
    if reached:
        level = text.decibels(reached[-1].sqnr_db or 0.0)
        parts.append(f"{level} on {judged_on(found)}{_climb(found.ladder, reached)}")
    checked = found.validation or (reached[-1].validation if reached else None)
    if checked and checked.sqnr_db is not None:
        parts.append(f"on validation images {_checked(checked)}")
    if not parts:
        return ""
    if found.budget:
        parts.append("the budget holds" if found.budget.held else "the budget does not hold")
    simulated = " (simulated)" if found.simulated else ""
    return f"{found.precision.upper()} of {found.model}{simulated}: {'; '.join(parts)}."


def _checked(found: Validation) -> str:
    """`23.9 dB, 98.4 % agreement, top-1 −0.10 points (95 %: −0.90 … +0.70)`."""
    figures = [text.decibels(found.sqnr_db or 0.0)]
    if found.agreement is not None:
        figures.append(f"{text.percent(found.agreement)} agreement")
    if found.drop is not None:
        interval = f" (95 %: {loss_interval(found.drop_interval)})" if found.drop_interval else ""
        figures.append(f"top-1 {loss_in_points(found.drop)} points{interval}")
    return ", ".join(figures)


def _climb(ladder: tuple[Rung, ...], reached: list[Rung]) -> str:
    """What the rungs above the first, which is plain calibration, added."""
    tried, helped = len(ladder) - 1, len(reached) - 1
    if not tried:
        return ""
    if not helped:
        return " with calibration alone: no other rung helped"
    start = text.decibels(reached[0].sqnr_db or 0.0)
    best = max(reached[1:], key=lambda rung: rung.gain_db or 0.0)
    most = f"{best.rung} most, {text.decibel_change(best.gain_db or 0.0)}"
    return f", up from {start}: {helped} of the {tried} rungs tried helped, {most}"


def simulation_note(found: Quantized) -> str:
    """Whose arithmetic is behind the figures; empty where it is that of the target."""
    if not found.simulated:
        return ""
    if found.validated_by:
        return f"Simulated by {found.validated_by}."
    return (
        "Simulated: ONNX Runtime computed SQNR, agreement and top-1 with the same Q/DQ pairs; "
        f"{RUNTIMES.get(found.target, found.target)} may round otherwise."
    )


def operator_count(found: Quantized) -> str:
    """`57 of 75 operators in INT8 (76.0 %)`; empty where nothing was counted."""
    converted = sum(found.converted.values())
    total = converted + len(found.left)
    if not total:
        return ""
    return (
        f"{converted} of {total} operators in {found.precision.upper()} ({text.percent(converted / total)})"
    )


def peak_lines(found: Quantized) -> dict[str, str]:
    """The largest activation and sum, as far as they were looked for, and the limit that they were held against."""
    lines = {}
    for name, peak in (("activation", found.largest_activation), ("sum", found.largest_sum)):
        if peak is not None:
            lines[f"largest {name}"] = f"{magnitude(peak.value)} ({text.short_name(peak.name)})"
    if lines and found.limit is not None:
        lines[f"highest allowed in {found.precision.upper()}"] = magnitude(found.limit)
    return lines


def magnitude(value: float) -> str:
    """Three significant digits; with an exponent from a million on."""
    if abs(value) < 1e6:
        return text.figure(value)
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits}e{int(exponent)}"


def speed_line(speed: Speed) -> str:
    """`INT8 in openvino is faster than FP32 in onnxruntime, the fastest FP32 here: 4.10 ms against 6.60 ms …`."""
    threads = "1 thread" if speed.threads == 1 else f"{speed.threads} threads"
    verdict, start = speed.verdict, ""
    if verdict == "cannot tell":
        verdict, start = "faster", "cannot tell whether "
    low, high = speed.interval
    return (
        f"{start}INT8 in {speed.runtime} is {verdict} than FP32 in {speed.fp32_runtime}, the fastest FP32 here: "
        f"{text.figure(speed.int8_ms)} ms against {text.figure(speed.fp32_ms)} ms at batch {speed.batch} with "
        f"{threads}, {speed.ratio:.2f} times its latency (95 %: {low:.2f} … {high:.2f})"
    )


def float_prefix_line(tried: tuple[FloatPrefix, ...]) -> str:
    """`INT8 begins at /blocks.2/Conv, the fastest of 9 places that were timed: 4.00 ms …`; empty of one place."""
    chosen = next((one for one in tried if one.chosen), None)
    if chosen is None or len(tried) < 2:
        return ""
    plain, (low, high) = tried[0], chosen.interval
    start = f"INT8 begins at {text.short_name(chosen.until)}"
    if chosen is plain:
        return f"{start} as planned: the best of {len(tried) - 1} later places that were timed is not surely faster"
    return (
        f"{start}, the best of {len(tried)} places that were timed: {text.figure(chosen.ms)} ms with "
        f"{chosen.layers} layers in floating point, instead of {text.figure(plain.ms)} ms with {plain.layers}; "
        f"{chosen.ratio:.2f} times the latency of FP32 (95 %: {low:.2f} … {high:.2f})"
    )
