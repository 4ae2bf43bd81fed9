"""Biases: float for TensorRT, INT32 of scale input · weight for ONNX Runtime, either for OpenVINO."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from optkit.graph.lint.base import ONNXRUNTIME, TENSORRT, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import BIASED, LintGraph

TOLERANCE = 1e-3


def _biased(graph: LintGraph) -> Iterator[onnx.NodeProto]:
    for node in graph.plain.nodes:
        if node.op_type in BIASED and len(node.input) > 2 and node.input[2]:
            yield node


def quantized_bias(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """TensorRT's parser takes no INT32 into DequantizeLinear."""
    for node in _biased(graph):
        if graph.decoder(node, 2):
            yield label(graph.original(node)), "Its bias comes through Q/DQ, which TensorRT's parser refuses."


def _float_bias(graph: LintGraph, kind: str, reason: str) -> Iterator[tuple[str, str]]:
    for node in _biased(graph):
        if node.op_type == kind and graph.is_quantized_node(node) and not graph.decoder(node, 2):
            yield label(graph.original(node)), reason


def float_bias(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """The optimiser has no integer Gemm with a float bias."""
    return _float_bias(graph, "Gemm", "Its bias is float, so ONNX Runtime runs it in float.")


def float_conv_bias(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Newer versions of ONNX Runtime quantise it themselves when they load the file."""
    return _float_bias(graph, "Conv", "Its bias is float: older ONNX Runtimes then run it in float.")


def bias_scale(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """QLinearConv has no place for a bias scale: it takes the product for granted."""
    for node in _biased(graph):
        codecs = [graph.decoder(node, index) for index in range(3)]
        scales = [
            codec.scale.astype(np.float64).ravel() for codec in codecs if codec and codec.scale is not None
        ]
        if len(scales) < 3 or scales[0].size != 1:
            continue
        expected = scales[0] * scales[1]
        fits = expected.size in (1, scales[2].size) or scales[2].size == 1
        if not fits or not np.allclose(scales[2], expected, rtol=TOLERANCE, atol=0):
            yield (
                label(graph.original(node)),
                "The scale of its bias is not input scale · weight scale, which ONNX Runtime assumes.",
            )


RULES = (
    Rule("quantized-bias", Severity.ERROR.on((TENSORRT,)), "Leave biases in float (--target tensorrt).",
         quantized_bias),
    Rule("float-bias", Severity.WARNING.on((ONNXRUNTIME,)), "Quantise the bias to INT32 (--target onnxruntime).",
         float_bias),
    Rule("float-conv-bias", Severity.NOTE.on((ONNXRUNTIME,)), "Quantise the bias to INT32 (--target onnxruntime).",
         float_conv_bias),
    Rule("bias-scale", Severity.ERROR.on((ONNXRUNTIME,)),
         "Encode the bias in units of input scale · weight scale, per channel.", bias_scale),
)  # fmt: skip
