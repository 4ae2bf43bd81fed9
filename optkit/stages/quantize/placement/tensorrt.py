"""Q/DQ placement for TensorRT's explicit quantisation.

TensorRT fuses what lies between a DQ and the next Q, and refuses zero points and INT32 biases. So: S8
symmetric activations, S8 weights per output channel, float biases, Q/DQ only in front of what gains, and
nothing inside a chain that TensorRT makes one kernel of (Conv–Add–Relu, Conv–Sigmoid–Mul).
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html
"""

from __future__ import annotations

import onnx

from optkit.graph.qdq import Grid, QdqPlan
from optkit.graph.qdq_view import GATES, ConvShape, GraphView

# Pass a convolution's result on inside its fused kernel.
POINTWISE = frozenset({"Relu", "Clip", "BatchNormalization", "HardSwish", "Identity"})
MIN_WIDTH = 16


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
        if _is_pooled(view, node.input[0]):
            return "works on pooled 1×1 maps (SE gate): too little work to pay for conversion"
        return conv_reason(view.conv_shape(node), is_first=node.input[0] in view.inputs)
    if min(view.constants[node.input[1]].dims) < MIN_WIDTH:
        return f"narrower than {MIN_WIDTH}"
    return ""


def conv_reason(shape: ConvShape, is_first: bool) -> str:
    """Why a convolution has no good INT8 kernel, empty when it has one.

    The table of legal shapes is the one of NVIDIA's Model-Optimizer (modelopt.onnx.quantization).
    """
    if shape.groups > 1:
        if shape.outputs % 8:
            return "grouped, channels not a multiple of 8"
        return "" if min(shape.kernel) >= 3 else "grouped, kernel smaller than 3"
    narrow = min(shape.inputs, shape.outputs) < MIN_WIDTH
    if narrow:
        wide_enough = is_first or max(shape.inputs, shape.outputs) >= MIN_WIDTH
        aligned = shape.outputs % 8 == 0 or shape.inputs % 8 == 0
        square = len(set(shape.kernel)) == 1
        if not (wide_enough and aligned and square):
            return f"narrower than {MIN_WIDTH} channels"
    return ""


def _is_pooled(view: GraphView, tensor: str) -> bool:
    """Whether only pointwise work and convolutions lie between a global pooling and `tensor`."""
    seen = set()
    waiting = [tensor]
    while waiting:
        maker = view.producer.get(waiting.pop())
        if maker is None or maker.name in seen:
            continue
        seen.add(maker.name)
        if maker.op_type == "GlobalAveragePool":
            return True
        one_map = maker.op_type in POINTWISE | GATES or view.gated_by_itself(maker)
        if one_map or (maker.op_type == "Conv" and set(view.conv_shape(maker).kernel) == {1}):
            waiting.extend(view.activation_inputs(maker))
    return False


def _from_conv(view: GraphView, tensor: str) -> bool:
    """Whether only pointwise work (SiLU and HardSwish included) lies between a convolution and `tensor`."""
    if view.only_consumer(tensor) is None:
        return False
    while (maker := view.producer.get(tensor)) is not None:
        if maker.op_type == "Conv":
            return True
        gated = view.gated_by_itself(maker)
        if not gated and maker.op_type not in POINTWISE:
            return False
        tensor = gated or maker.input[0]
        if len(view.consumers[tensor]) != (2 if gated else 1):
            return False
    return False


def _plan_sum(view: GraphView, planned: QdqPlan, node: onnx.NodeProto) -> None:
    """Q/DQ on the shortcut only: the other operand's convolution then adds it in its own kernel.

    Where both operands come from convolutions (downsampling blocks), the deeper path is the fused one.
    """
    deepest_first = sorted(node.input, key=lambda name: -view.activations[name])
    fused = [name for name in deepest_first if _from_conv(view, name)]
    if not fused:
        planned.left[node.name] = "no operand comes straight from a convolution"
        return
    shortcut = next(name for name in node.input if name != fused[0])
    planned.nodes.add(node.name)
    planned.add_edge(shortcut, node)
