"""How far from the image on floating point is faster than INT8, by measured time.

The first layers have large maps of few channels: what INT8 saves in their products it loses to conversions and to
the element-wise operators between them. So the one thing that is searched for is where INT8 begins.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core.errors import FailedError, OptkitError
from optkit.core.progress import Reporter
from optkit.core.types import Context, ModelSpec, Precision
from optkit.graph.onnx_file import ClassifierIO
from optkit.graph.qdq_view import GraphView
from optkit.graph.segments import single_value_points
from optkit.runtimes.base import Session
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.profile import profile
from optkit.stages.quantize.speed import (
    ROUNDS,
    File,
    against_fp32,
    cpu_runtimes,
    facts_of,
    open_files,
    paired_ratio,
    time_rounds,
    why_slower,
)

CUTS = 8  # at most, beside the plain candidate
MAX_BYTES = 2**30  # of what all of them hold at once, had they stayed in FP32
FIRST_ROUNDS = 4  # of all cuts; the best one is then timed anew, as the best of many was lucky too
RUNS = 10  # of the profiler: the times only spread the cuts
REASON = (
    "with the first layers in float the network is faster here (measured): {:.3g} ms instead of {:.3g} ms"
)
CHOICE = "float_prefix.json"


def choose_float_prefix(
    candidate: Candidate,
    io: ClassifierIO,
    spec: ModelSpec,
    target: str,
    context: Context,
) -> tuple[Candidate, list[dict[str, Any]] | None]:
    """`candidate` with as many first layers in float as make it surely faster, and what was timed.

    FailedError when even that is surely slower than FP32. None when `target` has no runtime for CPUs here, or
    refuses a file. A killed run chooses once: what rungs had learnt fits no other choice.
    """
    here = cpu_runtimes()
    if target not in here:
        return candidate, None
    view = GraphView(candidate.model)
    known = None if context.scratch is None else context.scratch / CHOICE
    if known is not None and known.is_file():
        choice = json.loads(known.read_text("utf-8"))
        return with_float_prefix(candidate, view, choice["start"], choice["reason"]), choice["told"]
    starts = [0, *cuts(candidate, _times(candidate.model, io, spec))]
    trials = [with_float_prefix(candidate, view, start, "") for start in starts]
    files = [File(candidate.model, Precision.FP32, runtime) for runtime in here]
    files += [File(trial.build(), Precision.INT8, target) for trial in trials]
    try:
        with open_files(files, spec) as sessions:
            timed, best = _race(sessions, len(here), spec, context.reporter)
            facts = facts_of(sessions)
    except OptkitError as error:
        context.reporter.info(f"Not timed with more layers in floating point: {error} {error.why}")
        return candidate, None
    speeds = [against_fp32(rounds, here, target, facts) for rounds in timed]
    if slower := why_slower(speeds[best]):
        raise FailedError(
            slower,
            why=f"That is the fastest of {len(starts)} files, which differ in where INT8 begins.",
            hint="Keep FP32, or try another --target. For a file that is made for another machine: --allow-slower.",
        )
    start, reason = starts[best], REASON.format(speeds[best]["int8_ms"], speeds[0]["int8_ms"])
    told = [
        _told(trial, view, speed) | {"chosen": index == best}
        for index, (trial, speed) in enumerate(zip(trials, speeds, strict=True))
    ]
    if known is not None:
        known.parent.mkdir(parents=True, exist_ok=True)
        partial = known.with_suffix(".part")
        partial.write_text(json.dumps({"start": start, "reason": reason, "told": told}), "utf-8")
        partial.replace(known)
    return with_float_prefix(candidate, view, start, reason), told


def _race(
    sessions: list[Session], fp32: int, spec: ModelSpec, reporter: Reporter
) -> tuple[list[NDArray[np.float64]], int]:
    """Of every trial the rounds (n, fp32 + 1), its own latencies last, and which trial to take.

    The first `fp32` sessions are of FP32, the next one of the plain candidate: unless that is surely slower than FP32,
    another one has to be surely faster.
    """
    baselines = [*range(fp32)]
    first = time_rounds(sessions, spec, FIRST_ROUNDS, reporter)
    best = int(np.median(first[:, fp32:], axis=0).argmin())
    finalists = [*baselines, fp32, *([fp32 + best] if best else [])]
    final = time_rounds([sessions[one] for one in finalists], spec, ROUNDS, reporter)
    fastest = int(np.median(final[:, :fp32], axis=0).argmin())
    plain_is_slower = paired_ratio(final[:, fp32], final[:, fastest]).low > 1
    if best and not plain_is_slower and paired_ratio(final[:, -1], final[:, fp32]).high >= 1:
        best, final = 0, final[:, :-1]
    timed = [first[:, [*baselines, trial]] for trial in range(fp32, len(sessions))]
    timed[0], timed[best] = final[:, [*baselines, fp32]], final[:, [*baselines, -1]]
    return timed, best


def cuts(candidate: Candidate, times: NDArray[np.float64]) -> list[int]:
    """At most CUTS indices of nodes at which INT8 may begin, that part the `times` of all nodes evenly.

    There, a convolution of the plan reads the one tensor that is alive.
    """
    view = GraphView(candidate.model)
    plan = candidate.plan
    first = next(index for index, node in enumerate(view.nodes) if node.name in plan.nodes)
    possible = [
        index
        for index in single_value_points(view)
        if index > first and view.nodes[index].op_type == "Conv" and view.nodes[index].name in plan.nodes
    ]
    if not possible:
        return []
    count = min(CUTS, MAX_BYTES // candidate.model.ByteSize())
    before = np.concatenate([[0.0], np.cumsum(times)])[possible]
    wanted = float(times.sum()) * np.arange(1, count + 1) / (count + 1)
    return sorted({possible[int(np.abs(before - share).argmin())] for share in wanted})


def with_float_prefix(candidate: Candidate, view: GraphView, start: int, reason: str) -> Candidate:
    """`candidate` with the nodes before the one at `start` in float; `reason` is told of those that were not."""
    if not start:
        return candidate
    names = [node.name for node in view.nodes[:start]]
    plan = candidate.plan.without(dict.fromkeys(names, reason), view)
    freed = {name: reason for name in names if name in candidate.plan.nodes}
    observed = plan.observed()
    floors = {name: floor for name, floor in plan.floors.items() if name in observed}
    plan = replace(plan, left={**candidate.plan.left, **freed}, floors=floors)
    return replace(
        candidate,
        plan=plan,
        observed={name: candidate.observed[name] for name in observed},
        ranges={name: candidate.ranges[name] for name in observed},
    )


def _times(model: onnx.ModelProto, io: ClassifierIO, spec: ModelSpec) -> NDArray[np.float64]:
    """What every node takes in FP32 in ONNX Runtime on one thread, in ms."""
    size = spec.preprocess.size
    pixels = np.random.default_rng(0).standard_normal((io.batch or 1, 3, size, size), np.float32)
    found = profile(model, pixels, RUNS)
    return np.array([found.get(node.name, 0.0) for node in model.graph.node])


def _told(trial: Candidate, view: GraphView, speed: dict[str, Any]) -> dict[str, Any]:
    """Layers with weights in float, the node where INT8 begins, and how fast the file is, for the manifest."""
    layers = [node.name for node in view.nodes if view.weight_axis(node) is not None]
    return {
        "layers": sum(name not in trial.plan.nodes for name in layers),
        "until": next(node.name for node in view.nodes if node.name in trial.plan.nodes),
        "ms": speed["int8_ms"],
        "ratio": speed["ratio"],
        "interval": speed["interval"],
    }
