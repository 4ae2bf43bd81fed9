"""Operators that force conversions between integers and floating point on their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from optkit.graph.lint.base import CPU, ONNXRUNTIME, OPENVINO, TARGETS, TENSORRT, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import CLIPPING, LintGraph

POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool"})
PAIRED = frozenset({"Add", "Mul"})
BRIDGES = POOLS | PAIRED | {"Concat"}
# OpenVINO computes sums and SiLU in the convolution's kernel, and a gate's pooling and product faster in float.
OPENVINO_BRIDGES = BRIDGES - PAIRED - {"GlobalAveragePool"}


def half_quantized(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Such a layer runs in float and pays for the conversion."""
    for node in graph.weighted():
        coded = [name for index, name in enumerate(("input", "weights")) if graph.decoder(node, index)]
        if len(coded) == 1:
            missing = "weights" if coded == ["input"] else "input"
            yield label(graph.original(node)), f"Only its {coded[0]} come through Q/DQ, not its {missing}."


def half_sum(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """ONNX Runtime has integer Add and Mul for two integer operands only."""
    for node in graph.plain.nodes:
        if node.op_type in PAIRED and len(graph.plain.activation_inputs(node)) == 2:
            coded = sum(graph.decoder(node, index) is not None for index in range(2))
            if coded == 1:
                yield (
                    label(graph.original(node)),
                    f"One operand of {node.op_type} comes through Q/DQ, the other not.",
                )


def float_islands(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Integer operators before and after it, and float in between."""
    bridges = OPENVINO_BRIDGES if graph.target == OPENVINO else BRIDGES
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
        if node.op_type in POOLS and graph.reads_codes(node):
            neighbours = [*_makers(graph, node), *graph.plain.consumers[node.output[0]]]
            if not any(map(graph.is_quantized_node, neighbours)):
                yield label(graph.original(node)), f"{node.op_type} is quantised between float operators."


def _makers(graph: LintGraph, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The nodes that make its activations, before activations that are fused with them."""
    for name in graph.plain.activation_inputs(node):
        maker = graph.plain.producer.get(name)
        while maker is not None and maker.op_type in CLIPPING and not graph.reads_codes(maker):
            maker = graph.plain.producer.get(maker.input[0])
        if maker is not None:
            yield maker


BOTH = "Put Q/DQ on both, or on neither."
RULES = (
    Rule("half-quantized", Severity.WARNING, TARGETS, BOTH, half_quantized),
    Rule("half-sum", Severity.WARNING, (ONNXRUNTIME,), BOTH, half_sum),
    Rule("float-island", Severity.WARNING, CPU, "Put Q/DQ around it too.", float_islands),
    Rule("integer-island", Severity.WARNING, (*CPU, TENSORRT), "Remove its Q/DQ.", integer_islands),
)
