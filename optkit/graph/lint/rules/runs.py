"""What the target's runtime says: does it take the file, and does it compute in integers?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from optkit.graph.lint.base import CPU, TARGETS, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import LintGraph

# Of the convolutions with Q/DQ. NNCF's file of EfficientNet-Lite0, with 12 of 49 in integers, took 2.7 times the
# latency of FP32 in ONNX Runtime 1.31 (batch 1, 2 threads of an AVX-512 server).
LEAST_SHARE = 0.5


def refused(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Asked here, not guessed."""
    if graph.execution.refused:
        yield "", f"{graph.target} refuses the file: {graph.execution.refused}"


def not_integer(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Q/DQ round a convolution that stays in float costs time instead of saving it."""
    for name in _floating(graph).elements():
        yield name, f"It has Q/DQ, and {graph.target} runs it in floating point here."


def mostly_float(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Conversions cost more than the few integer kernels gain."""
    wanted, floating = _quantized_convolutions(graph).total(), _floating(graph).total()
    if floating > (1 - LEAST_SHARE) * wanted:
        done = f"{wanted - floating} of {wanted} quantised convolutions"
        yield "", f"{graph.target} runs {done} in integers here: it may well be slower than FP32."


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


def _quantized_convolutions(graph: LintGraph) -> Counter[str]:
    """How many of each label: names need not differ."""
    return Counter(
        label(graph.original(node))
        for node in graph.plain.nodes
        if node.op_type == "Conv" and graph.is_quantized_node(node)
    )


def _floating(graph: LintGraph) -> Counter[str]:
    return Counter(graph.execution.floating) & _quantized_convolutions(graph)


REMEDY = "Quantise the FP32 file for this target: optkit quantize"
RULES = (
    Rule("refused", Severity.ERROR.on(CPU), "Export or quantise the model for this target.", refused),
    Rule("mostly-float", Severity.ERROR.on(CPU), REMEDY, mostly_float),
    Rule("not-integer", Severity.WARNING.on(CPU), REMEDY, not_integer),
    Rule("integer-share", Severity.NOTE.on(CPU), "", share),
    Rule("unchecked", Severity.NOTE.on(TARGETS), "", unchecked),
)
