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
from optkit.graph.tensorrt_fusion import MIN_WIDTH, conv_reason, from_conv, is_pooled


def plan(view: GraphView) -> QdqPlan:
    """Quantise the inputs of convolutions and linear layers that gain, and the shortcut of residual sums."""
    planned = QdqPlan(Grid(symmetric=True), quantize_bias=False)
    for node in view.nodes:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            if reason := _reason_for_float(view, node):
                planned.left[node.name] = reason
            else:
                planned.nodes.add(node.name)
                planned.add_edge(node.input[0], node)
        elif node.op_type == "Add" and len(set(view.activation_inputs(node))) == 2:
            _plan_sum(view, planned, node)
    return planned


def _reason_for_float(view: GraphView, node: onnx.NodeProto) -> str:
    if view.weight_axis(node) is None:
        return "its weights are not constant"
    if node.op_type == "Conv":
        if is_pooled(view, node.input[0]):
            return "works on pooled 1×1 maps (SE gate): too little work to pay for conversion"
        return conv_reason(view.conv_shape(node), is_first=node.input[0] in view.inputs)
    if min(view.constants[node.input[1]].dims) < MIN_WIDTH:
        return f"narrower than {MIN_WIDTH}"
    return ""


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
