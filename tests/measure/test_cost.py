from __future__ import annotations

import pytest
import timm
import torch

from optkit.measure.cost import module_cost
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
    assert sum(layer.macs for layer in cost.layers) == cost.macs
    assert sum(layer.activations for layer in cost.layers) == cost.activations
    stem = cost.layers[0]
    assert stem.name == "conv_stem"
    assert stem.macs == (size // 2 + size % 2) ** 2 * stem.params
    assert "SiLU" in cost.not_counted


@pytest.mark.parametrize("size", [64, 75])
def test_tensorflows_padding_is_counted_in_full(size):
    with torch.device("meta"):
        same, plain = (
            module_cost(timm.create_model(arch).eval(), size)
            for arch in ("tf_efficientnet_b0", "efficientnet_b0")
        )
    assert "Conv2dSame" in {layer.type for layer in same.layers}
    assert same.metrics() == plain.metrics()
    assert [layer.macs for layer in same.layers] == [layer.macs for layer in plain.layers]


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
    assert cost.metrics() == {
        "macs": 6 * 6 * 4 * 27 + 4 * 36 * 5,
        "params": 4 * 28 + 5 * 145,
        "activations": 4 * 36 + 5,
    }
    assert [layer.name for layer in cost.layers] == ["0", "2"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    ("arch", "size", "millions"),
    [
        ("efficientnet_b0", 224, 6.75),
        ("tf_efficientnet_lite0", 224, 6.74),
        ("efficientnet_b3", 288, 21.49),
        ("resnet50", 224, 11.11),
        ("vit_small_patch16_224", 224, 11.95),
    ],
)
def test_activations_are_those_that_timm_publishes(arch, size, millions):
    with torch.device("meta"):
        module = timm.create_model(arch).eval()
    assert module_cost(module, size).activations / 1e6 == pytest.approx(millions, abs=0.005)


def test_bytes_of_weights_inputs_and_outputs():
    cost = module_cost(LAYERS, 9)
    weights = {"0": 3 * 8 * 9 + 8, "1": 8 * 9, "5": 8 * 5 + 5}
    moved = {"0": 3 * 81 + 8 * 16, "1": 2 * 8 * 16, "5": 8 + 5}
    assert {layer.name: layer.weight_bytes for layer in cost.layers} == {k: 4 * v for k, v in weights.items()}
    assert {layer.name: layer.activation_bytes for layer in cost.layers} == {
        k: 4 * v for k, v in moved.items()
    }
    assert cost.activations == 8 * 16 + 8 * 16 + 5
    assert cost.bytes_at(8) == 4 * (sum(weights.values()) + 8 * sum(moved.values()))


def test_a_row_has_the_intensity_of_one_image():
    row = module_cost(LAYERS, 9).layers[0].row()
    assert row["bytes"] == row["weight_bytes"] + row["activation_bytes"]
    assert row["macs_per_byte"] == row["macs"] / row["bytes"]
    assert row["precision"] == "fp32"


def test_products_outside_of_layers_count_in_the_totals():
    with torch.device("meta"):
        cost = module_cost(timm.create_model("test_vit").eval(), 160)
    assert cost.activations > sum(layer.activations for layer in cost.layers)
    assert cost.bytes_at(1) > sum(layer.bytes_at(1) for layer in cost.layers)
