from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from optkit.graph.clean import clean, opset, write_kernel_shapes


def _without_kernel_shape(model: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = [node for node in model.graph.node if node.op_type == "Conv"]
    kept = [attribute for attribute in node.attribute if attribute.name != "kernel_shape"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return node


def _kernel_shape(node: onnx.NodeProto) -> list[int]:
    return next(list(a.ints) for a in node.attribute if a.name == "kernel_shape")


def test_kernel_shape_is_read_off_the_weights(make_onnx: Callable[..., onnx.ModelProto]) -> None:
    model = make_onnx()
    node = _without_kernel_shape(model)
    assert write_kernel_shapes(model) == 1
    assert _kernel_shape(node) == [3, 3]
    assert write_kernel_shapes(model) == 0


def test_kernel_shape_is_found_behind_quantised_weights(make_onnx: Callable[..., onnx.ModelProto]) -> None:
    model = make_onnx()
    node = _without_kernel_shape(model)
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    model.graph.initializer.append(scale)
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["kernel", "scale"], ["q"]))
    model.graph.node.insert(1, helper.make_node("DequantizeLinear", ["q", "scale"], ["dq"]))
    node = next(n for n in model.graph.node if n.op_type == "Conv")
    node.input[1] = "dq"
    clean(model)
    assert _kernel_shape(node) == [3, 3]
    onnx.checker.check_model(model)


def test_kernel_shape_is_found_behind_constant_nodes(make_onnx: Callable[..., onnx.ModelProto]) -> None:
    model = make_onnx()
    node = _without_kernel_shape(model)
    (kernel,) = [tensor for tensor in model.graph.initializer if tensor.name == "kernel"]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["kernel"], value=kernel))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["text"], value_string="a"))
    model.graph.initializer.remove(kernel)
    node = next(n for n in model.graph.node if n.op_type == "Conv")
    assert write_kernel_shapes(model) == 1
    assert _kernel_shape(node) == [3, 3]


def test_notes_go_and_the_graph_stays(make_onnx: Callable[..., onnx.ModelProto]) -> None:
    model = make_onnx()
    plain = model.SerializeToString()
    for item in (model.graph, *model.graph.node, *model.graph.initializer):
        item.doc_string = "File /home/somebody/model.py"
        item.metadata_props.add(key="stack_trace", value="File /home/somebody/model.py")
    clean(model)
    assert b"/home/somebody" not in model.SerializeToString()
    assert model.SerializeToString() == plain


def test_opset_is_the_standard_one(make_onnx: Callable[..., onnx.ModelProto]) -> None:
    model = make_onnx()
    model.opset_import.add(domain="com.microsoft", version=77)
    assert opset(model) == 20
    del model.opset_import[:]
    assert opset(model) == 0
