"""Q/DQ placement for OpenVINO on the CPU, which fuses much more into a convolution than ONNX Runtime does.

Bias, ReLU, SiLU, HardSwish, a residual sum and the rounding to the next layer's codes are all computed inside
the convolution, on its accumulator. So Q/DQ stand in front of what multiplies by weights, and nowhere between
a convolution and what is fused with it; biases stay in float.

U8 activations: S8 was 6 to 10 % faster on EfficientNet-B0 and 10 % slower on EfficientNet-Lite0, and it costs 1 to
3 dB of SQNR. But only convolutions and linear layers make use of codes with a zero point: every other operator
gets a conversion to float in front. So maximum pooling and residual sums read codes only of tensors that
cannot be negative, whose zero point is 0. SE gates (pooling, product) are in float even then: reading
codes cost EfficientNet-B0 7 % and MobileNetV3 10 %.

Figures in this file: OpenVINO 2026, one thread of an AVX-512 VNNI server; ranges from 64 photos, SQNR of
the logits on 100 others of the same sets.
"""

from __future__ import annotations

import onnx

from optkit.graph.qdq import Grid, QdqPlan
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.float_start import float_start

# The convolutions of SE gates too: with those in float, EfficientNet-B0 took 5 % longer and MobileNetV3 12 %.
WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
# What it buys and costs: the SQNR of EfficientNet-B0 rises from 19 to 28 dB, and it is 3 % faster; EfficientNet-Lite0
# gains 1.5 dB, and was 7 % slower by the median, 1 % by the fastest run.
FLOAT_START = "the stem and its depthwise convolution lose most accuracy in INT8, and gain little time"


def plan(view: GraphView) -> QdqPlan:
    """Quantise the inputs of layers with weights, and what reads non-negative codes for nothing."""
    planned = QdqPlan(Grid(symmetric=False), quantize_bias=False)
    start = {node.name for node in float_start(view)}
    for node in view.nodes:
        if node.op_type in WEIGHTED and view.activation_inputs(node):
            if view.weight_axis(node) is None:
                planned.left[node.name] = "its weights are not constant"
            elif node.name in start:
                planned.left[node.name] = FLOAT_START
            else:
                planned.nodes.add(node.name)
                planned.add_edge(node.input[0], node)
    for node in view.nodes:
        if node.op_type == "MaxPool" and _never_negative(view, node.input[0]):
            planned.nodes.add(node.name)
            planned.add_edge(node.input[0], node)
            if node.output[0] in planned.edges:
                planned.same_range[node.output[0]] = node.input[0]  # the same codes, rounded once
        elif node.op_type == "Add":
            _plan_sum(view, planned, node)
    return planned


def _plan_sum(view: GraphView, planned: QdqPlan, node: onnx.NodeProto) -> None:
    """A sum reads the codes that a convolution reads too, instead of a second copy in float."""
    operands = view.activation_inputs(node)
    coded = [name for name in operands if name in planned.edges and _never_negative(view, name)]
    if coded and len(operands) == 2:
        planned.nodes.add(node.name)
        for name in coded:
            planned.add_edge(name, node)
    elif operands:
        planned.left[node.name] = "added in float inside a convolution's kernel"


def _never_negative(view: GraphView, tensor: str) -> bool:
    """Whether a ReLU, or a clip at 0 or above, made the values; also before maximum pooling."""
    maker = view.producer.get(tensor)
    while maker is not None and maker.op_type == "MaxPool":
        maker = view.producer.get(maker.input[0])
    if maker is None or maker.op_type == "Relu":
        return maker is not None
    low = view.constant(maker.input[1]) if maker.op_type == "Clip" and len(maker.input) > 1 else None
    return low is not None and float(low) >= 0
