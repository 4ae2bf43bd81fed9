from __future__ import annotations

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper

from optkit.measure.cost import module_cost, onnx_cost
from optkit.measure.formula import LayerShape, explain, with_separable

# GMACs of B0…B7 at the sizes of the paper (arXiv 1905.11946, table 2), counted exactly.
FAMILY = [
    ("efficientnet_b0", 224, 0.386, 5_288_548),
    ("efficientnet_b1", 240, 0.687, 7_794_184),
    ("efficientnet_b2", 260, 0.994, 9_109_994),
    ("efficientnet_b3", 300, 1.827, 12_233_232),
    ("efficientnet_b4", 380, 4.394, 19_341_616),
    ("efficientnet_b5", 456, 10.27, 30_389_784),
    ("tf_efficientnet_b6", 528, 19.07, 43_040_704),
    ("tf_efficientnet_b7", 600, 37.75, 66_347_960),
]


@pytest.mark.parametrize(("arch", "size", "gmacs", "params"), FAMILY)
def test_efficientnet_family(arch, size, gmacs, params):
    with torch.device("meta"):
        module = timm.create_model(arch).eval()
    cost = module_cost(module, size)
    assert cost.macs / 1e9 == pytest.approx(gmacs, rel=1e-3)
    assert cost.params == params
    assert sum(layer["macs"] for layer in cost.layers) == cost.macs
    assert cost.layers[0] == {
        "name": "conv_stem",
        "type": cost.layers[0]["type"],
        "macs": (size // 2 + size % 2) ** 2 * cost.layers[0]["params"],
        "params": cost.layers[0]["params"],
    }
    assert "SiLU" in cost.not_counted


@pytest.mark.parametrize("size", [64, 75])
def test_tensorflows_padding_is_counted_in_full(size):
    with torch.device("meta"):
        same, plain = (
            module_cost(timm.create_model(arch).eval(), size)
            for arch in ("tf_efficientnet_b0", "efficientnet_b0")
        )
    assert "Conv2dSame" in {layer["type"] for layer in same.layers}
    assert same.metrics() == plain.metrics()
    assert [layer["macs"] for layer in same.layers] == [layer["macs"] for layer in plain.layers]


# A convolution of stride 2 without padding, a depthwise one, and a linear layer: 9×9 → 4×4 → 4×4 → 1.
LAYERS = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, stride=2),
    torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
    torch.nn.BatchNorm2d(8),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(8, 5),
).eval()


def test_shapes_of_layers():
    shapes = module_cost(LAYERS, 9).shapes
    assert shapes == {
        "0": LayerShape(3, 8, 9, 1, 81, 16, True),
        "1": LayerShape(8, 8, 9, 8, 16, 16, False),
        "5": LayerShape(8, 5, 1, 1, 1, 1, True),
    }
    assert shapes["0"].formula_flops() == 2 * 9 * 9 * 3 * 8 * 9
    assert shapes["0"].formula_params() == 3 * 8 * 9 + 8
    assert shapes["0"].why() == "stride, padding ×0.198"
    assert shapes["1"].why() == "depthwise ÷8, no bias"
    assert shapes["5"].why() == ""
    assert all(not layer._forward_hooks for layer in LAYERS.modules())


def test_every_step_from_the_formulas_to_the_count():
    cost = module_cost(LAYERS, 9)
    first, *reasons, last = explain(list(cost.shapes.values()), cost.macs, cost.params)
    assert first["flops"] == 2 * (81 * 3 * 8 * 9 + 16 * 8 * 8 * 9 + 8 * 5)
    assert first["params"] == (3 * 8 * 9 + 8) + (8 * 8 * 9 + 8) + (8 * 5 + 5)
    assert [row["flops"] for row in reasons] == [-2 * 65 * 3 * 8 * 9, -2 * 16 * 8 * 7 * 9, 0, 0]
    assert [row["params"] for row in reasons] == [0, -8 * 7 * 9, -8, 16]  # 16: of the normalisation
    assert last["flops"] == 2 * cost.macs == first["flops"] + sum(row["flops"] for row in reasons)
    assert last["params"] == cost.params == first["params"] + sum(row["params"] for row in reasons)


def test_the_depthwise_separable_counterpart():
    cost = module_cost(LAYERS, 9)
    ordinary, separable = 2 * 16 * 3 * 8 * 9, 2 * 16 * 3 * (9 + 8)
    assert with_separable(list(cost.shapes.values()), cost.macs) == 2 * cost.macs - ordinary + separable


def test_a_layer_that_runs_twice_counts_twice():
    layer = torch.nn.Conv2d(3, 3, 3, padding=1)
    cost = module_cost(torch.nn.Sequential(layer, layer).eval(), 8)
    assert cost.shapes["0"].exact_flops() == 2 * cost.macs == 2 * 2 * 64 * 81


def test_products_outside_of_layers_are_a_step_of_their_own():
    with torch.device("meta"):
        cost = module_cost(timm.create_model("test_vit").eval(), 160)
    *_, others, last = explain(list(cost.shapes.values()), cost.macs, cost.params)
    assert others["flops"] > 0
    assert last["flops"] == 2 * cost.macs


def test_no_layer_at_all():
    assert [row["flops"] for row in explain([], 0, 0)] == [0] * 6


def test_normalisations_that_hold_an_activation_are_named_as_not_counted():
    with torch.device("meta"):
        cost = module_cost(timm.create_model("test_efficientnet").eval(), 32)
    assert cost.not_counted["BatchNormAct2d"] > 0
    assert "Identity" not in cost.not_counted


def test_counting_leaves_the_module_as_it_is():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5)
    ).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    cost = module_cost(module, 8)
    assert cost.metrics() == {"macs": 6 * 6 * 4 * 27 + 4 * 36 * 5, "params": 4 * 28 + 5 * 145}
    assert [layer["name"] for layer in cost.layers] == ["0", "2"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_onnx_counts_convolution_and_head(make_onnx):
    cost = onnx_cost(make_onnx(classes=5, size=None), 32)
    assert cost.macs == 32 * 32 * 16 * 27 + 16 * 5
    assert cost.params == 16 * 27 + 16 * 5
    assert list(cost.shapes.values()) == [
        LayerShape(3, 16, 9, 1, 1024, 1024, False),
        LayerShape(16, 5, 1, 1, 1, 1, False),
    ]
    assert [layer["type"] for layer in cost.layers] == ["Conv", "Gemm"]
    assert cost.not_counted == {"Relu": 1, "ReduceMean": 1}
    assert cost.unknown == []


def test_a_fixed_batch_is_counted_for_one_image(make_onnx):
    fixed, free = onnx_cost(make_onnx(batch=4), 32), onnx_cost(make_onnx(), 32)
    assert (fixed.metrics(), fixed.shapes) == (free.metrics(), free.shapes)


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
    assert quantised.layers == [{"name": "depthwise", "type": "Conv", "macs": 675, "params": 30}]


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
    assert cost.metrics() == {"macs": 8 * 8 * 4 * 12, "params": 48}
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
