"""What the target's runtime says: does it take the file, and does it compute in integers?"""

from __future__ import annotations

from collections.abc import Iterator

from optkit.graph.lint.base import CPU, TARGETS, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import LintGraph

LEAST_SHARE = 0.5  # of the convolutions with Q/DQ; files below were measured at 2.7 times the latency of FP32


def refused(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Asked here, not guessed."""
    if graph.execution.refused:
        yield "", f"{graph.target} refuses the file: {graph.execution.refused}"


def not_integer(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Q/DQ round a convolution that stays in float costs time instead of saving it."""
    for name in _floating(graph):
        yield name, f"It has Q/DQ, and {graph.target} runs it in floating point here."


def mostly_float(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Such files are slower than FP32."""
    wanted = _quantized_convolutions(graph)
    floating = _floating(graph)
    if wanted and len(floating) > (1 - LEAST_SHARE) * len(wanted):
        done = f"{len(wanted) - len(floating)} of {len(wanted)} quantised convolutions"
        yield "", f"{graph.target} runs {done} in integers: expect it slower than FP32."


def share(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """The figure itself."""
    execution = graph.execution
    total = len(execution.integer) + len(execution.floating)
    if total and graph.is_quantized:
        yield "", f"{graph.target} runs {len(execution.integer)} of {total} convolutions in integers."


def unchecked(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """What was not measured is said."""
    if graph.execution.unchecked and graph.is_quantized:
        yield "", f"Which precisions really run was not checked: {graph.execution.unchecked}."


def _quantized_convolutions(graph: LintGraph) -> set[str]:
    return {
        label(graph.original(node))
        for node in graph.plain.nodes
        if node.op_type == "Conv" and graph.is_quantized_node(node)
    }


def _floating(graph: LintGraph) -> list[str]:
    wanted = _quantized_convolutions(graph)
    return [name for name in graph.execution.floating if name in wanted]


REMEDY = "Quantise the FP32 file for this target: optkit quantize"
RULES = (
    Rule("refused", Severity.ERROR, TARGETS, REMEDY, refused),
    Rule("mostly-float", Severity.ERROR, CPU, REMEDY, mostly_float),
    Rule("not-integer", Severity.WARNING, CPU, REMEDY, not_integer),
    Rule("integer-share", Severity.NOTE, CPU, "", share),
    Rule("unchecked", Severity.NOTE, TARGETS, "", unchecked),
)
