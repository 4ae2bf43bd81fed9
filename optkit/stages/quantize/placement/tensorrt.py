"""Q/DQ placement for TensorRT's explicit quantisation.

TensorRT fuses what lies between a DQ and the next Q, and refuses zero points and INT32 biases. So: S8
symmetric activations, S8 weights per output channel, float biases, Q/DQ only in front of what gains, and
nothing inside a chain that TensorRT makes one kernel of (Conv–Add–Relu, Conv–Sigmoid–Mul).
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html
"""

from __future__ import annotations

import onnx

from optkit.graph.qdq import Grid, QdqPlan
from optkit.graph.qdq_view import GraphView
from optkit.graph.tensorrt_fusion import from_conv, weight_reason


def plan(view: GraphView) -> QdqPlan:
    """Quantise the inputs of convolutions and linear layers that gain, and the shortcut of residual sums."""
    planned = QdqPlan(Grid(symmetric=True), quantize_bias=False)
    for node in view.nodes:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            if reason := weight_reason(view, node):
                planned.left[node.name] = reason
            else:
                planned.nodes.add(node.name)
                planned.add_edge(node.input[0], node)
        elif node.op_type == "Add" and len(set(view.activation_inputs(node))) == 2:
            _plan_sum(view, planned, node)
    return planned


def _plan_sum(view: GraphView, planned: QdqPlan, node: onnx.NodeProto) -> None:
    """Q/DQ on the shortcut only: the other operand's convolution then adds it in its own kernel.

    Where both operands come from convolutions (downsampling blocks), the deeper path is the fused one.
    """
    deepest_first = sorted(node.input, key=lambda name: -view.activations[name])
    fused = [name for name in deepest_first if from_conv(view, name)]
    if not fused:
        planned.left[node.name] = "no operand comes straight from a convolution"
        return
    shortcut = next(name for name in node.input if name != fused[0])
    planned.nodes.add(node.name)
    planned.add_edge(shortcut, node)
