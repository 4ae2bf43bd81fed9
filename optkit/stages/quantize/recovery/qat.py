"""Weights and biases trained through the rounding, for the same placement, ranges and scales: see `training.py`."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core.errors import UsageError
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import GraphModule
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.workbench import Workbench

ORDER = 70
# INT32 biases widen the scale of weights that are tiny beside them; a bias that stayed below what it was widened
# for leaves the scale as it is. The margin is some units in the last place.
BIAS_CODES = 2**30 * (1 - 1e-6)


def improve(candidate: Candidate, bench: Workbench) -> tuple[Candidate, str] | None:
    """The candidate after some training; Unsupported when the graph holds operators without a torch form."""
    if bench.train is None:
        return None
    file = candidate.build()
    grids = file_scales(candidate, file)
    scales = candidate.plan.scales(candidate.ranges)
    student = GraphModule(candidate.fitted_model(), candidate.plan, scales, grids)
    learning = _learning(GraphView(candidate.model))
    for name in student.parameter_names:
        student.parameter(name).requires_grad_(name in learning)
    key = hashlib.sha256(file.SerializeToString(deterministic=True)).hexdigest()
    try:
        note = bench.train(student, GraphModule(candidate.model), key)
    except (
        UsageError
    ) as error:  # diverged, or out of memory: the hint is for those who train from the command line
        return candidate, f"{error} {error.why}"
    learnt = {name: value for name, value in student.initializers().items() if name in learning}
    fitted = candidate.fitted | _limited(learnt, candidate, scales, grids)
    return replace(candidate, fitted=fitted, weight_scales=grids), note


def file_scales(candidate: Candidate, file: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The scales of every quantised weight, by node, as `file` has them."""
    view, quantized = GraphView(candidate.model), GraphView(file)
    nodes = {node.name: node for node in quantized.nodes}
    found = {}
    for node in view.nodes:
        if node.name in candidate.plan.nodes and view.weight_axis(node) is not None:
            decode = quantized.producer[nodes[node.name].input[1]]
            found[node.name] = quantized.constant(decode.input[1]).copy()
    return found


def _learning(view: GraphView) -> set[str]:
    """Weights and biases of convolutions and matrix products; other constants stay."""
    return {
        name
        for node in view.nodes
        if view.weight_axis(node) is not None
        for name in (node.input[1], *(node.input[2:] if view.bias(node) is not None else ()))
    }


def _limited(
    learnt: dict[str, NDArray[np.float32]],
    candidate: Candidate,
    scales: dict[str, tuple[np.float32, int]],
    grids: dict[str, NDArray[np.float32]],
) -> dict[str, NDArray[np.float32]]:
    """`learnt` with biases that the scales of their weights can hold in INT32."""
    view = GraphView(candidate.model)
    for node in view.nodes if candidate.plan.quantize_bias else ():
        if node.name in grids and view.bias(node) is not None:
            limit = grids[node.name] * float(scales[node.input[0]][0]) * BIAS_CODES
            learnt[node.input[2]] = np.clip(learnt[node.input[2]], -limit, limit).astype(np.float32)
    return learnt
