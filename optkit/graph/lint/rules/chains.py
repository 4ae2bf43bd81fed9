"""Q/DQ inside what should be one kernel, or in front of what has none in integers."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from optkit.graph.lint.base import CPU, TENSORRT, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import WEIGHTED, LintGraph
from optkit.graph.qdq_view import CLIPPING
from optkit.graph.tensorrt_fusion import POINTWISE

FUNCTIONS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Exp", "Log"})
SHAPING = frozenset(
    {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Pad", "Expand", "Where"}
)


def inside_silu(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Conv–Sigmoid–Mul is one kernel, and in 8 bits x · sigmoid(x) loses accuracy."""
    for node in graph.plain.nodes:
        gated = graph.plain.gated_by_itself(node)
        if gated is None:
            continue
        gate = next(graph.plain.producer[name] for name in node.input if name != gated)
        if graph.reads_codes(node) or graph.reads_codes(gate):
            kind = "SiLU" if gate.op_type == "Sigmoid" else "HardSwish"
            yield (
                label(graph.original(node)),
                f"Q/DQ inside {kind} (x · {gate.op_type}(x)) splits it from its Conv.",
            )


def output_codecs(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Behind a convolution TensorRT puts the next operator into its kernel, unless Q/DQ is between."""
    for node in graph.plain.nodes:
        if node.op_type in POINTWISE and (maker := _encoded_maker(graph, node)):
            yield (
                label(graph.original(node)),
                f"Q/DQ between {maker} and {node.op_type}: no single kernel for both.",
            )
    for name in sorted(graph.view.outputs):
        maker_of_output = graph.view.producer.get(name)
        if maker_of_output is not None and maker_of_output.op_type == "DequantizeLinear":
            yield label(maker_of_output), f"The output {name!r} of the network goes through Q/DQ."


def _encoded_maker(graph: LintGraph, node: onnx.NodeProto) -> str:
    """The type of the layer or sum whose result `node` reads through Q/DQ; empty for any other node."""
    maker = graph.plain.producer.get(node.input[0])
    is_layer = maker is not None and maker.op_type in WEIGHTED | {"Add", "BatchNormalization"}
    return str(maker.op_type) if maker is not None and is_layer and graph.decoder(node, 0) else ""


def float_functions(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """No integer kernels: what is decoded for them is only rounded."""
    gates = {
        graph.plain.producer[name].output[0]
        for node in graph.plain.nodes
        if (gated := graph.plain.gated_by_itself(node))
        for name in node.input
        if name != gated
    }
    for node in graph.plain.nodes:
        if node.op_type in FUNCTIONS and node.output[0] not in gates and graph.reads_codes(node):
            yield (
                label(graph.original(node)),
                f"TensorRT has no INT8 {node.op_type}; Q/DQ only rounds its input.",
            )


def shaping(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """They pass through Q/DQ placed at the convolutions."""
    for node in graph.plain.nodes:
        if node.op_type in SHAPING and graph.reads_codes(node):
            yield label(graph.original(node)), f"{node.op_type} needs no Q/DQ of its own."


def late_clipping(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Codes of values that are cut off right afterwards are lost."""
    for node in graph.plain.nodes:
        if node.op_type in CLIPPING and _encoded_maker(graph, node):
            yield (
                label(graph.original(node)),
                f"Q/DQ before {node.op_type} spends codes on values that it cuts off.",
            )


RULES = (
    Rule("inside-silu", Severity.ERROR.on((TENSORRT,)), "Move Q/DQ behind the Mul.", inside_silu),
    Rule("output-codec", Severity.ERROR.on((TENSORRT,)), "Remove this Q/DQ; where a convolution comes next, quantise "
         "its input.", output_codecs),
    Rule("float-function", Severity.ERROR.on((TENSORRT,)), "Remove the Q/DQ in front of it.", float_functions),
    Rule("shaping", Severity.WARNING.on((TENSORRT,)), "Remove the Q/DQ in front of it.", shaping),
    Rule("late-clipping", Severity.WARNING.on(CPU), "Move Q/DQ behind it: the clipped range is the quantised range.",
         late_clipping),
)  # fmt: skip
