"""Convolutions that TensorRT has no good INT8 kernel for."""

from __future__ import annotations

from collections.abc import Iterator

from optkit.graph.lint.base import TENSORRT, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import LintGraph
from optkit.graph.tensorrt_fusion import conv_reason, is_pooled


def slow_shapes(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """By the same table that the placement for TensorRT follows."""
    for node in graph.weighted():
        if node.op_type != "Conv" or not graph.is_quantized_node(node):
            continue
        reason = conv_reason(graph.plain.conv_shape(node), is_first=node.input[0] in graph.plain.inputs)
        if not reason and is_pooled(graph.plain, node.input[0]):
            reason = "works on pooled 1×1 maps"
        if reason:
            yield label(graph.original(node)), f"No INT8 kernel that is faster than FP16: {reason}."


RULES = (Rule("slow-shape", Severity.WARNING, (TENSORRT,), "Leave it in floating point.", slow_shapes),)
