"""Integer types and zero points that a target has no kernels for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from optkit.graph.lint.base import CPU, ONNXRUNTIME, TENSORRT, Rule, Severity
from optkit.graph.lint.names import label, type_name
from optkit.graph.lint.view import LintGraph

EIGHT_BITS = frozenset({TensorProto.INT8, TensorProto.UINT8})
TENSORRT_TYPES = EIGHT_BITS | {TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.FLOAT4E2M1}


def zero_points(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """TensorRT's quantisation is symmetric."""
    for codec in graph.pairs():
        values = np.zeros(1) if codec.zero is None else codec.zero.astype(np.float64).ravel()
        if (values != 0).any():
            worst = f"{values[values != 0][0]:g}"
            yield label(codec.node), f"It has a zero point of {worst}; TensorRT takes only 0."


def unsigned(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """With zero point 0 TensorRT-RTX takes them; TensorRT itself documents INT8 alone."""
    for codec in graph.pairs():
        if codec.type == TensorProto.UINT8:
            yield label(codec.node), "It makes UINT8; TensorRT documents signed INT8 alone."


def signed_activations(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Measured on EfficientNet-Lite0: S8 fuses 35 of 49 convolutions and no Add, U8 all."""
    for codec in graph.activation_codecs():
        if codec.type == TensorProto.INT8 and codec.node.op_type == "QuantizeLinear":
            yield (
                label(codec.node),
                "It makes S8; ONNX Runtime's x86 kernels fuse U8 activations, others fall back.",
            )


def _others(graph: LintGraph, known: frozenset[int]) -> Iterator[tuple[str, str]]:
    for codec in graph.activation_codecs():
        if codec.node.op_type == "QuantizeLinear" and codec.type not in known:
            yield label(codec.node), f"{graph.target} has no integer convolution for {type_name(codec.type)}."


def tensorrt_types(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Activations in INT8 or FP8."""
    return _others(graph, TENSORRT_TYPES)


def cpu_types(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Activations in 8 bits."""
    return _others(graph, EIGHT_BITS)


REQUANTIZE = "Quantise again for this target."
SYMMETRIC = "Quantise again with symmetric signed ranges, zero points 0 (--target tensorrt)."
RULES = (
    Rule("zero-point", Severity.ERROR, (TENSORRT,), SYMMETRIC, zero_points),
    Rule("unsigned", Severity.WARNING, (TENSORRT,), SYMMETRIC, unsigned),
    Rule("signed-activations", Severity.WARNING, (ONNXRUNTIME,),
         "Quantise again with U8 activations (--target onnxruntime).", signed_activations),
    Rule("activation-type", Severity.ERROR, (TENSORRT,), REQUANTIZE, tensorrt_types),
    Rule("activation-type", Severity.WARNING, CPU, REQUANTIZE, cpu_types),
)  # fmt: skip
