"""Higher precision for the layers that cost most accuracy per millisecond.

What a layer costs in accuracy is the noise of the logits when it alone is INT8; what it costs in time is what it
takes in FP32, by ONNX Runtime's profiler on one thread of this machine, whatever the target. So the order is a guess;
the accuracy of what comes of it is measured on the file.
"""

from __future__ import annotations

from dataclasses import replace

from optkit.graph.qdq_view import GraphView
from optkit.measure.statistics import paired_gain
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.execute import pad
from optkit.stages.quantize.profile import profile
from optkit.stages.quantize.sensitivity import OperatorNoise
from optkit.stages.quantize.workbench import Workbench

ORDER = 60
TRIES = 5  # 1, 2, 4, 8 and 16 layers
REASON = "keeps the accuracy (mixed precision)"
MAX_SHARE = 0.5  # of the layers with weights: a file that is mostly FP32 is no INT8 file
LEAST_MS = 0.01  # the profiler's resolution, about: what takes less is not for nothing


def improve(candidate: Candidate, bench: Workbench) -> tuple[Candidate, str] | None:
    """As many layers again as are in floating point already for this reason, at first one; more while none helps."""
    times = profile(candidate.model, pad(bench.fit[0][: bench.io.batch or 1], bench.io.batch))
    view = GraphView(candidate.model)
    layers = {node.name for node in view.nodes if view.weight_axis(node) is not None} & candidate.plan.nodes

    def noise_per_ms(one: OperatorNoise) -> float:
        return float(10 ** (-one.sqnr_db / 10)) / max(times.get(one.node, 0.0), LEAST_MS)

    worst_first = sorted(
        (one for one in bench.sensitivity(candidate) if one.node in layers), key=noise_per_ms, reverse=True
    )
    before = sum(reason == REASON for reason in candidate.plan.left.values())
    allowed = int(MAX_SHARE * (before + len(layers))) - before
    _, plain = bench.choosing.parity(candidate.build(), bench.io)
    count = max(1, before)
    while True:
        chosen = [one.node for one in worst_first[: min(count, allowed)]]
        if not chosen:
            return None
        found = _freed(candidate, chosen, view)
        gain = paired_gain(plain, bench.choosing.parity(found.build(), bench.io)[1])
        if gain[1] > 0 or count >= allowed:
            break
        count *= 2
    milliseconds = sum(times.get(name, 0.0) for name in chosen)
    shown = f"{', '.join(chosen[:3])}{' …' if len(chosen) > 3 else ''}"
    note = f"layers freed: {before + len(chosen)}; the last take {milliseconds:.2f} ms in FP32: {shown}"
    return found, note


def _freed(candidate: Candidate, chosen: list[str], view: GraphView) -> Candidate:
    """`candidate` with the layers `chosen` in FP32, with their own weights and biases."""
    weights = {name for node in view.nodes if node.name in chosen for name in node.input[1:]}
    return replace(
        candidate,
        plan=candidate.plan.without(dict.fromkeys(chosen, REASON), view),
        fitted={name: value for name, value in candidate.fitted.items() if name not in weights},
        weight_scales={name: value for name, value in candidate.weight_scales.items() if name not in chosen},
    )
