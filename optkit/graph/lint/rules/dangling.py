"""QuantizeLinear and DequantizeLinear that are not pairs."""

from __future__ import annotations

from collections.abc import Iterator

from optkit.graph.lint.base import TARGETS, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import LintGraph

FLOAT_READERS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Sigmoid", "GlobalAveragePool"}
)


def dangling(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Each Q needs a reader of integers, each DQ integers to read and a reader."""
    for codec in graph.codecs:
        node, output = codec.node, codec.node.output[0]
        readers = graph.view.consumers[output]
        maker = graph.view.producer.get(node.input[0])
        if maker is not None and maker.op_type == node.op_type:
            yield label(node), f"It reads another {node.op_type}."
        if node.op_type == "QuantizeLinear" and output in graph.view.outputs:
            yield label(node), "The network answers in integers: a DequantizeLinear is missing."
        elif not readers and output not in graph.view.outputs:
            yield label(node), "Nothing reads it."
        elif node.op_type == "QuantizeLinear" and any(reader.op_type in FLOAT_READERS for reader in readers):
            yield (
                label(node),
                "An operator in floating point reads its integers: a DequantizeLinear is missing.",
            )


def repeated(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Two pairs in a row round twice."""
    for codec in graph.codecs:
        maker = graph.view.producer.get(codec.node.input[0])
        if maker is not None and (maker.op_type, codec.node.op_type) == (
            "DequantizeLinear",
            "QuantizeLinear",
        ):
            yield (
                label(codec.node),
                "It quantises what was dequantised right before: values are rounded twice.",
            )


RULES = (
    Rule("dangling", Severity.ERROR.on(TARGETS), "Remove the lone node, or write its partner.", dangling),
    Rule("repeated", Severity.WARNING.on(TARGETS), "Let the readers share one pair.", repeated),
)
