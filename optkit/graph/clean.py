"""What an exported graph needs before anybody else reads it."""

from __future__ import annotations

import onnx


def clean(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes and write down every convolution's kernel shape, in place."""
    strip_notes(model)
    write_kernel_shapes(model)


def strip_notes(model: onnx.ModelProto) -> None:
    """Remove what the exporter wrote for its own debugging: stack traces with the paths of this machine."""
    noted = [
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
        model.graph,
    ]
    for item in noted:
        item.ClearField("doc_string")
        del item.metadata_props[:]


def write_kernel_shapes(model: onnx.ModelProto) -> int:
    """Write `kernel_shape` on every Conv that leaves it to be read off the weights; returns how many.

    ONNX allows the omission, TensorRT refuses it once the weights come out of a DequantizeLinear.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        values = [entry.t for entry in node.attribute if entry.HasField("t")]
        if node.op_type == "Constant" and values:
            shapes[node.output[0]] = tuple(values[0].dims)
        if node.op_type in ("DequantizeLinear", "QuantizeLinear") and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    written = 0
    for node in model.graph.node:
        if node.op_type != "Conv" or any(attribute.name == "kernel_shape" for attribute in node.attribute):
            continue
        if node.input[1] in shapes:
            node.attribute.append(onnx.helper.make_attribute("kernel_shape", shapes[node.input[1]][2:]))
            written += 1
    return written


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operator set that the file really uses, 0 when it names none."""
    versions = [int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=0)
