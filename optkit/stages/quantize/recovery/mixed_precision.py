"""Higher precision for the layers that cost most accuracy per millisecond.

What a layer costs in accuracy is the noise of the logits when it alone is INT8; what it costs in time is what it
takes in FP32, by ONNX Runtime's profiler on this machine. That is a guess at what a file will gain: whether it does
is measured on the file.
"""

from __future__ import annotations

from dataclasses import replace

from optkit.graph.qdq_view import GraphView
from optkit.measure.profile import profile
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.sensitivity import sensitivity
from optkit.stages.quantize.workbench import Workbench

ORDER = 60
TRIES = 5  # 1, 2, 4, 8 and 16 layers
REASON = "keeps the accuracy (mixed precision)"
LEAST_MS = 0.01  # the profiler's resolution, about: what takes less is not for nothing


def improve(candidate: Candidate, bench: Workbench) -> tuple[Candidate, str] | None:
    """As many layers again as are in floating point already for this reason; at first, one."""
    pixels = bench.held[0][: bench.io.batch or 1]
    times = profile(candidate.model, pixels)
    view = GraphView(candidate.model)
    with_weights = {node.name for node in view.nodes if view.weight_axis(node) is not None}
    ranked = sorted(
        (entry for entry in sensitivity(candidate, bench) if entry["node"] in with_weights),
        key=lambda entry: -(10 ** (-entry["sqnr_db"] / 10)) / max(times.get(entry["node"], 0.0), LEAST_MS),
    )
    before = sum(reason == REASON for reason in candidate.plan.left.values())
    chosen = [entry["node"] for entry in ranked[: max(1, before)]]
    if not chosen:
        return None
    plan = candidate.plan.without(dict.fromkeys(chosen, REASON), view)
    weights = {name for node in view.nodes if node.name in chosen for name in node.input[1:]}
    changed = replace(
        candidate,
        plan=plan,
        fitted={name: value for name, value in candidate.fitted.items() if name not in weights},
        weight_scales={name: value for name, value in candidate.weight_scales.items() if name not in chosen},
    )
    milliseconds = sum(times.get(name, 0.0) for name in chosen)
    return (
        changed,
        f"{before + len(chosen)} layers in FP32, the last of {milliseconds:.2f} ms: {', '.join(chosen[:3])}",
    )
