"""Q/DQ placement that ONNX Runtime fuses into integer operators.

U8 activations with a zero point, S8 weights per output channel, INT32 biases of scale input · weight: with
S8 activations or float biases most convolutions stay in floating point between Q and DQ, and the file is
slower than FP32. On CPUs without VNNI (before 2019) a U8·S8 product pair may saturate.

Figures in this file: ONNX Runtime 1.31, one thread of an AVX-512 VNNI server; ranges from 64 photos, SQNR
of the logits on 100 others of the same sets.
"""

from __future__ import annotations

import math

import onnx

from optkit.graph.qdq import Grid, QdqPlan
from optkit.graph.qdq_view import CLIPPING, GraphView, attribute
from optkit.stages.quantize.float_start import float_start

# Have a weight; the sum runs in INT32, so this is where the speed comes from.
WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
# Have integer kernels, and would otherwise make their neighbours convert to float and back.
INTEGER = frozenset({"Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "Sigmoid"})
# Move values without changing them: integers pass when both sides share one scale.
MOVING = frozenset({"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"})
# x · sigmoid(x) is nearly 0 below, so codes spent there are lost.
# EfficientNet-B0 with `mse`: SQNR 12.3 dB without a floor, 17.7 with it. HardSwish is 0 below -3: seven networks
# (MobileNetV3-Small, trained on drawn images) gain 1.1 dB on average, by the best of three calibrators each.
SILU_FLOOR = -4.0
# Convolutions with few inputs per output gain nothing from INT8, and the first ones, of the largest images, lose:
# 1.1 ms instead of 0.6 for these two of EfficientNet-B0, whose file is 7 % faster and 4 to 9 dB better with them in
# float. Where ReLU follows, which integer convolutions fuse, or a dense convolution, INT8 is as fast or faster.
FLOAT_START = "the stem and its depthwise convolution, with SiLU or HardSwish: float kernels are faster"


def plan(view: GraphView) -> QdqPlan:
    """Quantise every operator that has an integer kernel, with Q/DQ round each, so that they touch."""
    planned = QdqPlan(Grid(symmetric=False), quantize_bias=True)
    planned.left = dict.fromkeys(_slow_start(view), FLOAT_START)
    for node in view.nodes:
        inputs = view.activation_inputs(node)
        if not inputs or node.output[0] not in view.activations:
            continue  # constants and arithmetic on shapes
        if node.name in planned.left:
            continue
        if reason := _reason_for_float(view, node):
            planned.left[node.name] = reason
            continue
        if node.op_type in CLIPPING:
            continue
        if node.op_type in MOVING and not set(inputs[:1]) <= planned.edges.keys():
            continue  # what it moves is in float, so it is moved in float
        planned.nodes.add(node.name)
        _quantize_around(view, planned, node, inputs)
    return planned


def _slow_start(view: GraphView) -> list[str]:
    """The nodes that `float_start` finds, unless an integer convolution fuses the activation of the stem."""
    start = float_start(view)
    return [] if any(node.op_type in CLIPPING for node in start[:2]) else [node.name for node in start]


def _reason_for_float(view: GraphView, node: onnx.NodeProto) -> str:
    if node.op_type in WEIGHTED:
        return "" if view.weight_axis(node) is not None else "its weights are not constant"
    if node.op_type in ("Add", "Mul") and len(view.activation_inputs(node)) < 2:
        return "" if set(node.input) == set(view.activation_inputs(node)) else "one input is constant"
    if node.op_type in INTEGER | MOVING | CLIPPING:
        return ""
    return "ONNX Runtime has no integer kernel for it"


def _quantize_around(view: GraphView, planned: QdqPlan, node: onnx.NodeProto, inputs: list[str]) -> None:
    for tensor in inputs:
        planned.add_edge(tensor, *_coded_readers(view, planned, tensor))
    output = node.output[0]
    reader = view.only_consumer(output)
    if reader is not None and reader.op_type in CLIPPING and node.op_type not in MOVING:
        output = reader.output[0]
    if output in view.outputs or not view.consumers[output]:
        return  # logits stay in float: they are what accuracy is measured on
    planned.add_edge(output, *_coded_readers(view, planned, output))
    if node.op_type in MOVING:
        planned.same_range[output] = inputs[0]
    if node.op_type == "Sigmoid":
        planned.fixed[output] = (0.0, 1.0)
    gated = view.gated_by_itself(node)
    # Nobody else reads it but the gate and this product, nor what it would share the range of.
    if gated is not None and len(view.consumers[gated]) == 2 and planned.range_source(gated) == gated:
        planned.floors[gated] = _floor(view, node, gated)


def _floor(view: GraphView, product: onnx.NodeProto, gated: str) -> float:
    """Below it x · gate(x) is 0, or nearly so."""
    gate = next(node for node in view.consumers[gated] if node is not product)
    if gate.op_type == "Sigmoid":
        return SILU_FLOOR
    alpha, beta = (float(attribute(gate, name, default)) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    return -beta / alpha if alpha > 0 else -math.inf


def _coded_readers(view: GraphView, planned: QdqPlan, tensor: str) -> list[onnx.NodeProto]:
    """All who read `tensor`, as its maker needs Q/DQ; but not the float start, whose makers are float too."""
    return [node for node in view.consumers[tensor] if planned.left.get(node.name) != FLOAT_START]
