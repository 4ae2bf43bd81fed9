"""What TensorRT makes one kernel of, and which convolutions it has good INT8 kernels for."""

from __future__ import annotations

import onnx

from optkit.graph.qdq_view import CLIPPING, GATES, ConvShape, GraphView

# Pass a convolution's result on inside its fused kernel.
POINTWISE = CLIPPING | {"LeakyRelu", "BatchNormalization", "HardSwish", "Identity"}
MIN_WIDTH = 16


def weight_reason(view: GraphView, node: onnx.NodeProto) -> str:
    """Why a Conv, Gemm or MatMul has no good INT8 kernel, empty when it has one."""
    if view.weight_axis(node) is None:
        return "its weights are not constant"
    if node.op_type == "Conv":
        if is_pooled(view, node.input[0]):
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


def is_pooled(view: GraphView, tensor: str) -> bool:
    """Whether only pointwise work and convolutions lie between a global pooling and `tensor`."""
    seen = set()
    waiting = [tensor]
    while waiting:
        maker = view.producer.get(waiting.pop())
        if maker is None or maker.output[0] in seen:
            continue
        seen.add(maker.output[0])
        if view.pools_maps(maker):
            return True
        one_map = maker.op_type in POINTWISE | GATES or view.gated_by_itself(maker)
        weight = view.constants.get(maker.input[1]) if maker.op_type == "Conv" else None
        if one_map or (weight is not None and set(weight.dims[2:]) == {1}):
            waiting.extend(view.activation_inputs(maker))
    return False


def from_conv(view: GraphView, tensor: str) -> bool:
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
