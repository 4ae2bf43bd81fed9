"""The file as a whole: operator set, shapes, types of weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from optkit.core.errors import InputError
from optkit.graph.lint.base import CPU, TARGETS, TENSORRT, Rule, Severity
from optkit.graph.lint.names import label, type_name
from optkit.graph.lint.view import STANDARD, LintGraph
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq_view import attribute

EIGHT_BIT_FLOATS = tuple(kind for name, kind in TensorProto.DataType.items() if name.startswith("FLOAT8"))
# The operator set that brought each type to QuantizeLinear; https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
SINCE = {
    **dict.fromkeys(EIGHT_BIT_FLOATS, 19),
    **dict.fromkeys((TensorProto.INT16, TensorProto.UINT16, TensorProto.INT4, TensorProto.UINT4), 21),
    TensorProto.FLOAT4E2M1: 23,
}
PER_CHANNEL_SINCE = 13
OTHER_SCALE_SINCE = 19  # FP16 or BF16
INTEGER_FORMAT = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
)
CONTROL = frozenset({"If", "Loop", "Scan"})


def old_opset(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """What a Q/DQ uses must exist in the operator set that the file names."""
    for codec in graph.pairs():
        if codec.node.domain not in STANDARD:
            continue
        needed, what = SINCE.get(codec.type, 10), type_name(codec.type)
        if codec.scale is not None and codec.scale.size > 1 and needed < PER_CHANNEL_SINCE:
            needed, what = PER_CHANNEL_SINCE, "a scale per channel"
        if codec.scale is not None and codec.scale.dtype != np.float32 and needed < OTHER_SCALE_SINCE:
            needed, what = OTHER_SCALE_SINCE, f"a scale in {codec.scale.dtype.name}"
        if graph.opset < needed:
            yield (
                label(codec.node),
                f"It uses {what}, which needs opset {needed}; the file has {graph.opset}.",
            )


def other_opset(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Exporters write another operator set than asked without a word."""
    asked = graph.facts.asked_opset
    if asked is not None and asked != graph.opset:
        yield "", f"Opset {asked} was asked for, the file has {graph.opset}."


def kernel_shape(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """TensorRT does not read it off weights that come out of a DequantizeLinear; TensorRT-RTX 1.7 does."""
    for node in graph.weighted():
        has_kernel = "Conv" in node.op_type
        if has_kernel and not attribute(node, "kernel_shape", ()) and graph.decoder(node, 1):
            yield label(graph.original(node)), "Its weights come through Q/DQ and it has no kernel_shape."


def types(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Operators must accept the types they are given."""
    try:
        onnx.shape_inference.infer_shapes(graph.model, check_type=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        yield "", " ".join(str(error).split())[:300]


def double_weights(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """No target computes in FP64."""
    for name, tensor in graph.tensors.items():
        if tensor.data_type == TensorProto.DOUBLE:
            yield name, "It is FP64."


def broken_weights(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """One NaN reaches every answer; scales have a rule of their own."""
    for name in dict.fromkeys(name for node in graph.weighted() for name in node.input[1:]):
        value = graph.value(name)
        if value is not None and value.dtype.kind not in "iufb":  # BF16 and FP8, which numpy does not know
            value = value.astype(np.float32)
        if value is not None and not np.isfinite(value).all():
            yield name, "It holds NaN or infinite values."


def external_data(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """The file alone is not the model."""
    if names := graph.facts.external:
        yield "", f"{len(names)} tensors lie in other files, which must travel with it."


def classifier(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """One image input, one output of logits."""
    try:
        classifier_io(graph.model)
    except InputError as error:
        yield "", error.why


def fixed_batch(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """A batch of one size, at the input or at a Reshape inside."""
    sizes = {
        value.name: _batch(value) for value in graph.model.graph.input if value.name in graph.plain.inputs
    }
    for name, size in sizes.items():
        if size is not None:
            yield name, f"The batch is fixed at {size}."
    if any(sizes.values()):
        return
    for value in graph.model.graph.output:
        if (size := _batch(value)) is not None:
            yield value.name, f"The input takes any batch, this output says {size}."
    for node in graph.plain.nodes:
        if node.op_type == "Reshape" and node.input[0] in graph.plain.activations:
            shape = graph.value(node.input[1])
            if shape is not None and shape.size and shape.ravel()[0] > 0:
                yield label(graph.original(node)), f"It makes shape {shape.ravel().tolist()} of every batch."


def _batch(value: onnx.ValueInfoProto) -> int | None:
    dimensions = value.type.tensor_type.shape.dim
    return dimensions[0].dim_value or None if dimensions else None


def integer_format(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """TensorRT reads quantisation from Q/DQ pairs only."""
    for node in graph.view.nodes:
        if node.op_type in INTEGER_FORMAT:
            yield label(node), f"TensorRT has no {node.op_type}."


def foreign_operators(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Operators of other domains than ONNX's own are made for one runtime."""
    for node in graph.view.nodes:
        if node.domain not in STANDARD:
            yield label(node), f"{node.op_type} is of the domain {node.domain!r}, not of standard ONNX."


def odd_constants(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md says so of Constant."""
    for name in sorted(graph.without_values):
        yield name, "It is a sparse constant, or text, which TensorRT's parser does not read."


def not_quantized(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Most rules are about Q/DQ."""
    if not graph.is_quantized:
        yield "", "It holds no Q/DQ."


def unseen(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Graphs within nodes."""
    for node in graph.view.nodes:
        if node.op_type in CONTROL:
            yield label(node), f"The graphs inside {node.op_type} were not looked at."


QUANTIZE = "Quantise the FP32 file for this target: optkit quantize"
EXPORT = "Export the model again."
AGAIN = "export"
RULES = (
    Rule("valid-types", Severity.ERROR.on(TARGETS), EXPORT, types, AGAIN),
    Rule("classifier", Severity.ERROR.on(TARGETS), "Export the classifier alone, with a float image as its only input "
         "and logits as its only output.", classifier, AGAIN),
    Rule("opset", Severity.ERROR.on(TARGETS), "Export and quantise with a newer opset.", old_opset, AGAIN),
    Rule("opset-not-honoured", Severity.ERROR.on(TARGETS), "Ask for the opset that the exporter writes.", other_opset,
         AGAIN),
    Rule("kernel-shape", Severity.ERROR.on((TENSORRT,)), "Write kernel_shape on every convolution.", kernel_shape),
    Rule("batch", Severity.WARNING.on(TARGETS), "Export with a dynamic batch dimension.", fixed_batch, AGAIN),
    Rule("double-weights", {**Severity.ERROR.on((TENSORRT,)), **Severity.WARNING.on(CPU)}, "Export in FP32.",
         double_weights, AGAIN),
    Rule("broken-weights", Severity.ERROR.on(TARGETS), "Train or export again; look for overflow in FP16.",
         broken_weights, AGAIN),
    Rule("external-data", Severity.NOTE.on(TARGETS), "Below 2 GB one file is simpler: optkit export merges them.",
         external_data, AGAIN),
    Rule("integer-format", Severity.ERROR.on((TENSORRT,)), QUANTIZE, integer_format),
    Rule("foreign-operators", Severity.ERROR.on((TENSORRT,)), EXPORT, foreign_operators, AGAIN),
    Rule("constant-form", Severity.ERROR.on((TENSORRT,)), "Write it as a dense tensor of numbers.", odd_constants,
         AGAIN),
    Rule("not-quantized", Severity.NOTE.on(TARGETS), "", not_quantized),
    Rule("control-flow", Severity.WARNING.on(TARGETS), "Export a fixed graph.", unseen, AGAIN),
)  # fmt: skip
