"""Residual sums for TensorRT: Q/DQ on the shortcut alone, so that a convolution adds in its own kernel."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from optkit.graph.lint.base import TENSORRT, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import LintGraph
from optkit.graph.tensorrt_fusion import from_conv


def _sums(graph: LintGraph) -> Iterator[tuple[onnx.NodeProto, list[bool], list[bool]]]:
    """Sums that a convolution could do; which operands come through Q/DQ, and which from a convolution."""
    for node in graph.plain.nodes:
        operands = list(node.input)
        if node.op_type != "Add" or len(set(graph.plain.activation_inputs(node))) != 2:
            continue
        fusible = [from_conv(graph.plain, name) for name in operands]
        if any(fusible):
            yield node, [graph.decoder(node, index) is not None for index in range(2)], fusible


def wrong_edge(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Q/DQ between a convolution and the sum forbids the fusion."""
    for node, coded, fusible in _sums(graph):
        if all(coded):
            yield (
                label(graph.original(node)),
                "Q/DQ on both operands: no convolution can add in its own kernel.",
            )
        elif any(coded) and not fusible[coded.index(False)]:
            yield label(graph.original(node)), "Q/DQ is on the convolution's side, not on the shortcut."


def float_shortcut(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Legal, but it costs bandwidth."""
    for node, coded, _ in _sums(graph):
        if graph.is_quantized and not any(coded):
            yield label(graph.original(node)), "Its shortcut is read in floating point."


REMEDY = "Put Q/DQ on the shortcut only, and leave the operand of the fused convolution alone."
RULES = (
    Rule("residual-edge", Severity.ERROR.on((TENSORRT,)), REMEDY, wrong_edge),
    Rule("float-shortcut", Severity.NOTE.on((TENSORRT,)), REMEDY, float_shortcut),
)
