"""Operators that force conversions between integers and floating point on their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from optkit.graph.lint.base import CPU, ONNXRUNTIME, OPENVINO, TARGETS, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import WEIGHTED, LintGraph
from optkit.graph.qdq_view import CLIPPING

WINDOWS = frozenset({"MaxPool", "AveragePool"})
PAIRED = frozenset({"Add", "Mul"})
# Of ONNX Runtime's; it has no integer ReduceMean, which is written as GlobalAveragePool therefore. OpenVINO computes
# sums and SiLU in the convolution's kernel, and a gate's pooling and product faster in float.
BRIDGES = {
    ONNXRUNTIME: WINDOWS | PAIRED | {"GlobalAveragePool", "Concat"},
    OPENVINO: WINDOWS | {"Concat"},
}
# Answer in codes when they read codes, those of several activations when all of them are codes.
SEVERAL = PAIRED | {"Concat"}
INTEGER = (WEIGHTED - {"ConvTranspose"}) | BRIDGES[ONNXRUNTIME]
INTEGER |= {"Sigmoid", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"}
FUSED = CLIPPING | {"LeakyRelu"}


def half_quantized(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Such a layer runs in float and pays for the conversion.

    Not where an integer operator of ONNX Runtime makes the input: it answers in codes, which somebody must decode.
    """
    for node in graph.weighted():
        by_input, by_weights = (graph.decoder(node, index) is not None for index in range(2))
        makes_codes = graph.target == ONNXRUNTIME and any(map(graph.is_quantized_node, _makers(graph, node)))
        if by_weights and not by_input:
            yield label(graph.original(node)), "Only its weights come through Q/DQ, not its input."
        elif by_input and not by_weights and not makes_codes:
            yield label(graph.original(node)), "Only its input comes through Q/DQ, not its weights."


def half_sum(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """ONNX Runtime has integer Add and Mul for two integer operands only.

    Not where an integer operator makes the coded operand and a float one the other: it answers in codes, which
    somebody must decode.
    """
    for node in graph.plain.nodes:
        if node.op_type in PAIRED and len(graph.plain.activation_inputs(node)) == 2:
            coded = [graph.decoder(node, index) is not None for index in range(2)]
            if sum(coded) == 1 and coded != [_comes_in_codes(graph, name) for name in node.input]:
                yield (
                    label(graph.original(node)),
                    f"One operand of {node.op_type} comes through Q/DQ, the other not.",
                )


def float_islands(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Integer operators before and after it, and float in between."""
    bridges = BRIDGES[graph.target]
    for node in graph.plain.nodes:
        activations = graph.plain.activation_inputs(node)
        if node.op_type not in bridges or graph.reads_codes(node) or len(activations) < len(node.input):
            continue
        if any(map(graph.is_quantized_node, _makers(graph, node))) and any(
            graph.is_quantized_node(reader) for reader in graph.plain.consumers[node.output[0]]
        ):
            yield label(graph.original(node)), f"{node.op_type} runs in float between integer operators."


def integer_islands(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Rounding without any gain."""
    for node in graph.plain.nodes:
        is_pool = node.op_type in WINDOWS or graph.plain.pools_maps(node)
        if is_pool and graph.reads_codes(node):
            neighbours = [*_makers(graph, node), *graph.plain.consumers[node.output[0]]]
            if not any(map(graph.is_quantized_node, neighbours)):
                yield label(graph.original(node)), f"{node.op_type} is quantised between float operators."


def _comes_in_codes(graph: LintGraph, tensor: str) -> bool:
    maker = _maker(graph, tensor)
    if maker is None or maker.op_type not in INTEGER or not graph.is_quantized_node(maker):
        return False
    return maker.op_type not in SEVERAL or all(
        graph.decoder(maker, index) is not None for index in range(len(maker.input))
    )


def _makers(graph: LintGraph, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The nodes that make its activations."""
    for name in graph.plain.activation_inputs(node):
        if maker := _maker(graph, name):
            yield maker


def _maker(graph: LintGraph, tensor: str) -> onnx.NodeProto | None:
    """The node that makes it, before pointwise functions that are fused with it; None for the image."""
    maker = graph.plain.producer.get(tensor)
    while maker is not None and maker.op_type in FUSED and not graph.reads_codes(maker):
        maker = graph.plain.producer.get(maker.input[0])
    return maker


BOTH = "Put Q/DQ on both, or on neither."
RULES = (
    Rule("half-quantized", Severity.WARNING.on(TARGETS), BOTH, half_quantized),
    Rule("half-sum", Severity.WARNING.on((ONNXRUNTIME,)), BOTH, half_sum),
    Rule("float-island", Severity.WARNING.on(CPU), "Put Q/DQ around it too.", float_islands),
    Rule("integer-island", Severity.WARNING.on(TARGETS), "Remove its Q/DQ.", integer_islands),
)
