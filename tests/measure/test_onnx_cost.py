from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from optkit.measure.cost import module_cost
from optkit.measure.counts import Layer
from optkit.measure.formula import LayerShape
from optkit.measure.onnx_cost import onnx_cost


def test_onnx_counts_convolution_and_head(make_onnx):
    cost = onnx_cost(make_onnx(classes=5, size=None), 32)
    assert cost.macs == 32 * 32 * 16 * 27 + 16 * 5
    assert cost.params == 16 * 27 + 16 * 5
    assert list(cost.shapes.values()) == [
        LayerShape(3, 16, 9, 1, 1024, 1024, False),
        LayerShape(16, 5, 1, 1, 1, 1, False),
    ]
    assert [layer.type for layer in cost.layers] == ["Conv", "Gemm"]
    assert cost.not_counted == {"Relu": 1, "ReduceMean": 1}
    assert cost.unknown == []


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ([8], LayerShape(8, 1, 1, 1, 12, 12, False)),
        ([3, 8, 5], LayerShape(8, 5, 1, 1, 12, 12, False)),
    ],
)
def test_a_product_with_a_vector_or_a_stack(weight: list[int], expected: LayerShape):
    value = helper.make_tensor("w", TensorProto.FLOAT, weight, np.ones(int(np.prod(weight))))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 8])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [image], [output], [value]
    )
    cost = onnx_cost(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), 8)
    assert list(cost.shapes.values()) == [expected]
    assert cost.macs == 8 * expected.out_channels * expected.out_positions


def test_a_fixed_batch_is_counted_for_one_image(make_onnx):
    fixed, free = onnx_cost(make_onnx(batch=4), 32), onnx_cost(make_onnx(), 32)
    assert (fixed.metrics(), fixed.shapes) == (free.metrics(), free.shapes)
    assert fixed.layers == free.layers


def test_counting_leaves_the_graph_as_it_is(make_onnx):
    model = make_onnx(size=None)
    before = model.SerializeToString()
    onnx_cost(model, 32)
    assert model.SerializeToString() == before


def grouped_conv(quantised: bool) -> onnx.ModelProto:
    """Depthwise convolution of stride 2, plain or with Q/DQ around its input and weights."""
    weight = np.arange(27, dtype=np.int8).reshape(3, 1, 3, 3)
    constants = {
        "scale": np.array(0.1, np.float32),
        "scales": np.full(3, 0.1, np.float32),
        "zero": np.array(0, np.int8),
        "zeros": np.zeros(3, np.int8),
        "w": weight if quantised else weight.astype(np.float32),
        "b": np.ones(3, np.int32) if quantised else np.ones(3, np.float32),
    }
    nodes = []
    names = ["x", "w", "b"]
    if quantised:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "scales", "zeros"], ["wd"], axis=0),
            helper.make_node("DequantizeLinear", ["b", "scales"], ["bd"], axis=0),
        ]
        names = ["xd", "wd", "bd"]
    pads = {"pads": [1, 1, 1, 1], "strides": [2, 2], "group": 3}
    nodes.append(helper.make_node("Conv", names, ["y"], "depthwise", **pads))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w_"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_quantised_graphs_cost_what_their_float_twins_cost():
    plain, quantised = onnx_cost(grouped_conv(False), 10), onnx_cost(grouped_conv(True), 10)
    assert plain.macs == quantised.macs == 5 * 5 * 3 * 9
    assert plain.params == quantised.params == 27 + 3
    assert plain.shapes == quantised.shapes == {"depthwise": LayerShape(3, 3, 9, 3, 100, 25, True)}
    assert plain.activations == quantised.activations == 5 * 5 * 3
    assert plain.layers == [
        Layer("depthwise", "Conv", 675, 30, 75, 4 * 30, 4 * (3 * 100 + 75), precision="fp32")
    ]
    # Weights of one byte, a bias of four, an input of one; what it makes is not quantised: four.
    assert quantised.layers == [
        Layer("depthwise", "Conv", 675, 30, 75, 27 + 4 * 3, 3 * 100 + 4 * 75, precision="int8")
    ]


def test_operators_of_the_integer_form():
    nodes = [
        helper.make_node(
            "QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"], "q", kernel_shape=[2, 2]
        )
    ]
    values = {
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.uint8),
        "w": np.ones((4, 3, 2, 2), np.uint8),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 3, 9, 9])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    cost = onnx_cost(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), 9)
    assert cost.metrics() == {"macs": 8 * 8 * 4 * 12, "params": 48, "activations": 8 * 8 * 4}
    assert (cost.weight_bytes, cost.activation_bytes) == (48, 3 * 81 + 8 * 8 * 4)
    assert cost.layers[0].precision == "int8"
    assert cost.shapes == {"q": LayerShape(3, 4, 4, 1, 81, 64, False)}


def test_a_layer_without_shapes_is_named():
    nodes = [
        helper.make_node("Mystery", ["x"], ["m"], domain="unknown.vendor"),
        helper.make_node("Conv", ["m", "w"], ["y"], "after", kernel_shape=[1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("unknown.vendor", 1)]
    cost = onnx_cost(helper.make_model(graph, opset_imports=opsets, ir_version=10), 8)
    assert cost.unknown == ["after"]
    assert cost.not_counted == {"Mystery": 1}


def test_a_layer_whose_shapes_contradict_is_named():
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((5, 2), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    cost = onnx_cost(model, 8)
    assert (cost.macs, len(cost.unknown)) == (0, 1)


def classifier(
    kind: int = TensorProto.FLOAT, after: str = "Relu", quantised: bool = False
) -> onnx.ModelProto:
    """A pointwise convolution in `kind` and what follows it, perhaps quantised at the end."""
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), helper.tensor_dtype_to_np_dtype(kind)), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv")]
    if after == "silu":
        nodes += [helper.make_node("Sigmoid", ["c"], ["s"]), helper.make_node("Mul", ["c", "s"], ["a"])]
    else:
        nodes.append(helper.make_node(after, ["c"], ["a"]))
    constants = [weight]
    if quantised:
        nodes.append(helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["q"]))
        constants += [
            numpy_helper.from_array(value, name)
            for name, value in (("scale", np.array(0.1, np.float32)), ("zero", np.array(0, np.uint8)))
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.UINT8 if quantised else kind, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("kind", "size", "precision"), [("FLOAT", 4, "fp32"), ("FLOAT16", 2, "fp16"), ("BFLOAT16", 2, "bf16")]
)
def test_bytes_are_those_of_the_stored_type(kind: str, size: int, precision: str):
    cost = onnx_cost(classifier(getattr(TensorProto, kind)), 8)
    assert (cost.weight_bytes, cost.activation_bytes) == (size * 12, size * (3 + 4) * 64)
    assert cost.layers[0].precision == precision
    assert cost.bytes_at(16) == cost.weight_bytes + 16 * cost.activation_bytes


@pytest.mark.parametrize(("after", "written"), [("Relu", 1), ("silu", 1), ("Softmax", 4)])
def test_a_layer_writes_what_its_activation_and_quantisation_make(after: str, written: int):
    cost = onnx_cost(classifier(after=after, quantised=True), 8)
    assert cost.activation_bytes == 4 * 3 * 64 + written * 4 * 64


def test_a_network_costs_the_same_in_torch_and_onnx(make_onnx):
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1, bias=False),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 5, bias=False),
    ).eval()
    ours, theirs = module_cost(module, 32), onnx_cost(make_onnx(), 32)
    assert ours.metrics() == theirs.metrics()
    assert (ours.weight_bytes, ours.activation_bytes) == (theirs.weight_bytes, theirs.activation_bytes)


def test_counting_a_graph_needs_neither_torch_nor_timm():
    code = "import sys, optkit.measure.onnx_cost; sys.exit(bool({'torch', 'timm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
