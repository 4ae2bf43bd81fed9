"""What learns in a candidate whose grids stay: its weights and biases, on the scales that its file has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import GraphModule
from optkit.stages.quantize.candidate import Candidate

# INT32 biases widen the scale of weights that are tiny beside them; a bias that stayed below what it was widened
# for leaves the scale as it is. The margin is some units in the last place.
BIAS_CODES = 2**30 * (1 - 1e-6)


def learning_module(candidate: Candidate, file: onnx.ModelProto) -> GraphModule:
    """What `file`, built from `candidate`, computes; gradients for weights and biases alone.

    Unsupported when the graph holds operators without a torch form.
    """
    scales = candidate.plan.scales(candidate.ranges)
    module = GraphModule(candidate.fitted_model(), candidate.plan, scales, file_scales(candidate, file))
    learning = _learning(GraphView(candidate.model))
    for name in module.parameter_names:
        module.parameter(name).requires_grad_(name in learning)
    return module


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


def with_learnt(candidate: Candidate, module: GraphModule) -> Candidate:
    """`candidate` with the weights and biases that `module` learnt, on its grids; biases as INT32 can hold them."""
    view, scales = GraphView(candidate.model), candidate.plan.scales(candidate.ranges)
    learning = _learning(view)
    learnt = {name: value for name, value in module.initializers().items() if name in learning}
    grids = {node: scale.numpy() for node, (scale, _) in module.weight_grids.items()}
    for node in view.nodes if candidate.plan.quantize_bias else ():
        if node.name in grids and view.bias(node) is not None:
            limit = grids[node.name] * float(scales[node.input[0]][0]) * BIAS_CODES
            learnt[node.input[2]] = np.clip(learnt[node.input[2]], -limit, limit).astype(np.float32)
    return replace(candidate, fitted=candidate.fitted | learnt, weight_scales=grids)


def _learning(view: GraphView) -> set[str]:
    """Weights and biases of convolutions and matrix products; other constants stay."""
    return {
        name
        for node in view.nodes
        if view.weight_axis(node) is not None
        for name in (node.input[1], *(node.input[2:] if view.bias(node) is not None else ()))
    }
