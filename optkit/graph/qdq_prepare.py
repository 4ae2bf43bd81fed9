"""Bring any ONNX classifier into the form that Q/DQ placement works on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from optkit.core.errors import InputError
from optkit.graph.qdq_view import GraphView, attribute, inner_reads
from optkit.graph.refusals import refusals

MIN_OPSET = 13  # the first with per-channel QuantizeLinear
FP8_OPSET = 19  # the first with FP8
WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
QUANTIZED_OPS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul"}
)


def prepare(model: onnx.ModelProto, opset: int = MIN_OPSET) -> onnx.ModelProto:
    """A copy that computes the same with BatchNormalization folded, constants folded and every node named.

    `opset` is the least that it may have. Global ReduceMean becomes GlobalAveragePool, which runtimes have in
    INT8, every Conv says its kernel_shape, constants of a Gemm hold its alpha and beta, and no two layers share a
    weight or a bias. Metadata and names of input and output stay. InputError for a quantised or FP16 file.
    """
    _refuse(model)
    prepared = _fold(_raise_opset(model, opset))
    _use_global_pooling(prepared)
    _unshare_weights(prepared)
    _fold_factors(prepared)
    used: set[str] = set()
    for index, node in enumerate(prepared.graph.node):
        if not node.name or node.name in used:
            node.name = f"{node.op_type}_{index}"
        used.add(node.name)
    view = GraphView(prepared)
    for node in view.nodes:
        if node.op_type == "Conv" and view.weight_axis(node) == 0 and not attribute(node, "kernel_shape", ()):
            node.attribute.append(helper.make_attribute("kernel_shape", view.conv_shape(node).kernel))
    return prepared


def _refuse(model: onnx.ModelProto) -> None:
    ops = {node.op_type for node in model.graph.node}
    if found := sorted(ops & QUANTIZED_OPS):
        raise InputError(
            "The ONNX file is quantised already.",
            why=f"It holds {', '.join(found)}.",
            hint="Quantise the FP32 file that it was made from.",
        )
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    if any(tensor.data_type in half for tensor in model.graph.initializer) or any(
        entry.type.tensor_type.elem_type in half for entry in model.graph.input
    ):
        raise InputError(
            "The ONNX file is in 16-bit floating point.",
            why="INT8 ranges are taken from FP32.",
            hint="Quantise the FP32 file that it was made from.",
        )


def _raise_opset(model: onnx.ModelProto, wanted: int) -> onnx.ModelProto:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset >= wanted:
        return model
    try:
        return onnx.version_converter.convert_version(model, wanted)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"The ONNX file has opset {opset} and cannot be raised to {wanted}.",
            why=str(error).strip().splitlines()[0].rpartition("failed: ")[2],  # without the converter's line
            hint=f"Export it again with opset {wanted} or newer.",
        ) from None


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX Runtime's basic optimisations: they stay within standard ONNX operators."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(model, before)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(after)
        try:
            onnxruntime.InferenceSession(before, options, providers=["CPUExecutionProvider"])
        except refusals() as error:
            raise InputError(
                "ONNX Runtime does not accept the ONNX file.",
                why=str(error).strip().splitlines()[0],
                hint="Export it again from the checkpoint.",
            ) from None
        folded = onnx.load(after, format="protobuf")
    used = {node.domain for node in folded.graph.node} | {""}
    kept = [entry for entry in folded.opset_import if entry.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    del folded.metadata_props[:]
    folded.metadata_props.extend(model.metadata_props)
    return folded


def _use_global_pooling(model: onnx.ModelProto) -> None:
    """ReduceMean over height and width → GlobalAveragePool, followed by Flatten when it drops the axes."""
    view = GraphView(model)
    ranks = _ranks(model)
    nodes = []
    for node in view.nodes:
        is_mean = node.op_type == "ReduceMean" and view.pools_maps(node)
        if not is_mean or ranks.get(node.input[0]) != 4:
            nodes.append(node)
        elif attribute(node, "keepdims", 1):
            nodes.append(helper.make_node("GlobalAveragePool", node.input[:1], node.output, node.name))
        else:
            pooled = f"{node.output[0]}.pooled"
            nodes.append(helper.make_node("GlobalAveragePool", node.input[:1], [pooled], node.name))
            nodes.append(helper.make_node("Flatten", [pooled], node.output, f"{node.name}.flatten", axis=1))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _unshare_weights(model: onnx.ModelProto) -> None:
    """A copy of every constant for each layer that is not alone in reading it: its weights are fitted alone."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    taken = {value.name for value in model.graph.output}
    for node in model.graph.node:
        taken.update(node.input[:1] if node.op_type in WEIGHTED else node.input, inner_reads(node))
    for number, node in enumerate(model.graph.node):
        for position, name in enumerate(node.input):
            if node.op_type in WEIGHTED and position and name in constants:
                if name in taken:
                    copy = onnx.TensorProto()
                    copy.CopyFrom(constants[name])
                    copy.name = node.input[position] = f"{name}.copy{number}"
                    model.graph.initializer.append(copy)
                taken.add(name)


def _fold_factors(model: onnx.ModelProto) -> None:
    """Multiply a Gemm's constants, which nobody shares, by its alpha and beta: integer kernels know only 1.

    Not those that are inputs too: they are defaults, and others may be given instead.
    """
    inputs = {value.name for value in model.graph.input}
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in inputs}
    for node in model.graph.node:
        if node.op_type == "Gemm":
            for factor, name in zip(("alpha", "beta"), node.input[1:], strict=False):
                if name in constants:
                    value = numpy_helper.to_array(constants[name]) * np.float32(attribute(node, factor, 1.0))
                    constants[name].CopyFrom(numpy_helper.from_array(value, name))
                    kept = [entry for entry in node.attribute if entry.name != factor]
                    del node.attribute[:]
                    node.attribute.extend(kept)


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def parameter_count(model: onnx.ModelProto) -> int:
    """Elements of the FP32 initializers."""
    return sum(
        numpy_helper.to_array(tensor).size
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )
