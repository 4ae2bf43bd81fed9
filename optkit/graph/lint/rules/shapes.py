"""Layers that TensorRT has no good INT8 kernel for."""

from __future__ import annotations

from collections.abc import Iterator

from optkit.graph.lint.base import TENSORRT, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import LintGraph
from optkit.graph.tensorrt_fusion import weight_reason


def slow_shapes(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """By the same table that the placement for TensorRT follows."""
    for node in graph.weighted():
        is_known = graph.plain.weight_axis(node) is not None
        if is_known and graph.is_quantized_node(node) and (reason := weight_reason(graph.plain, node)):
            yield label(graph.original(node)), f"INT8 is not worth it in TensorRT: {reason}."


RULES = (Rule("slow-shape", Severity.WARNING.on((TENSORRT,)), "Leave it in floating point.", slow_shapes),)
