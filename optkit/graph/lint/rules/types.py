"""Types of codes and zero points that a target has no kernels for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from optkit.graph.lint.base import CPU, ONNXRUNTIME, TENSORRT, Rule, Severity
from optkit.graph.lint.names import label, type_name
from optkit.graph.lint.view import BIASED, Codec, LintGraph

EIGHT_BITS = frozenset({TensorProto.INT8, TensorProto.UINT8})
# https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/Dequantize.html
TENSORRT_TYPES = EIGHT_BITS | {TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.FLOAT4E2M1}
BIAS = 2  # index among a layer's inputs


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
        if codec.type == TensorProto.UINT8 and (codec.zero is None or not codec.zero.any()):
            yield label(codec.node), "Its codes are UINT8; TensorRT documents signed INT8 alone."


def signed_activations(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """In EfficientNet-Lite0, ONNX Runtime 1.31 fuses 35 of 49 convolutions and no Add with S8, with U8 all."""
    for codec in graph.activation_codecs():
        if codec.type == TensorProto.INT8 and codec.node.op_type == "QuantizeLinear":
            yield (
                label(codec.node),
                "It makes S8; ONNX Runtime's x86 kernels fuse U8 activations, others fall back.",
            )


def other_types(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Of activations and weights; biases have rules of their own."""
    known = TENSORRT_TYPES if graph.target == TENSORRT else EIGHT_BITS
    for codec in graph.pairs():
        if codec.type in (TensorProto.UNDEFINED, *known) or _is_bias(graph, codec):
            continue
        yield label(codec.node), f"{graph.target} has no convolution for {type_name(codec.type)}."


def _is_bias(graph: LintGraph, codec: Codec) -> bool:
    """Whether it decodes for biases alone."""
    output = codec.node.output[0]
    readers = graph.view.consumers[output]
    return bool(readers) and all(
        reader.op_type in BIASED and output in reader.input[BIAS:] for reader in readers
    )


SYMMETRIC = "Quantise again with symmetric signed ranges, zero points 0 (--target tensorrt)."
RULES = (
    Rule("zero-point", Severity.ERROR.on((TENSORRT,)), SYMMETRIC, zero_points),
    Rule("unsigned", Severity.WARNING.on((TENSORRT,)), SYMMETRIC, unsigned),
    Rule("signed-activations", Severity.WARNING.on((ONNXRUNTIME,)),
         "Quantise again with U8 activations (--target onnxruntime).", signed_activations),
    Rule("code-type", {**Severity.ERROR.on((TENSORRT,)), **Severity.WARNING.on(CPU)},
         "Quantise the FP32 file for this target.", other_types),
)  # fmt: skip
