"""The features of networks, the fit, and what is said of its errors."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import nn

from optkit.core.errors import InputError
from optkit.measure import estimate_fit
from optkit.measure.estimate import calibrate, estimate, stored
from optkit.measure.estimate_data import Measured, Networks, measured
from optkit.measure.estimate_fit import STIFFNESS, Terms, best_stiffness, fit, held_out, relative
from optkit.measure.estimate_onnx import onnx_ops
from optkit.measure.estimate_ops import Op, features, totals, unknown_kinds
from optkit.measure.estimate_setups import SETUPS, choose, family_of, gpus
from optkit.measure.estimate_torch import module_ops
from optkit.models.build import build, new_spec
from optkit.stages.export.stage import to_onnx
from tests.small_networks import Builder

EAGER, COMPILED = "infer-amp-nchw-pt291-cu130-5090", "infer-amp-nchw-pt291-cu130-5090-dynamo"


def counted(arch: str, size: int) -> dict[str, float]:
    with torch.device("meta"):
        return features(module_ops(build(arch, 1000), size))


def test_products_and_their_bytes() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.SiLU(),
        nn.Conv2d(16, 16, 3, groups=16),
    )
    ops = module_ops(network.eval(), 8)
    assert Counter(op.kind for op in ops) == {"conv": 1, "batch_norm": 1, "silu": 1, "depthwise": 1}
    assert totals(ops) == (16 * 64 * 27 + 16 * 36 * 9, 16 * 64 + 16 * 36)
    found = features(ops)
    assert found["conv_macs"] == 16 * 64 * 27
    assert found["conv_tiled"] == 64 * 64 * 32
    assert found["batch_norm"] == found["silu"] == 2 * 2 * 16 * 64
    assert found["cast"] == 6 * 3 * 64  # the image comes in 4 bytes
    assert found["launches"] == 4
    # Compiled, normalisation and activation are one kernel.
    assert found["fused/kernels"] == 1
    assert found["fused/pointwise_in"] == found["fused/pointwise_out"] == 2 * 16 * 64


def test_what_meets_a_parameter_stays_in_four_bytes() -> None:
    ops = [
        Op("linear", ((0, 10),), (1, 10), macs=100, width=10, depth=10),
        Op("mul", ((1, 10),), (2, 10), promotes=True),
        Op("add", ((2, 10), (1, 10)), (3, 10)),
        Op("linear", ((3, 10),), (4, 10), macs=100, width=10, depth=10),
    ]
    found = features(ops)
    assert found["mul"] == 10 * (2 + 4)
    assert found["add"] == 10 * (4 + 2 + 4)
    assert found["cast"] == 2 * 10 * (4 + 2)


def test_attention_is_one_operation_and_its_heads_join_for_free() -> None:
    with torch.device("meta"):
        ops = module_ops(build("test_vit", 10), 160)
    found = Counter(op.kind for op in ops)
    assert found["attention"] == 6
    assert found["copy"] == 1  # the class token
    assert "softmax" not in found


@pytest.mark.parametrize(
    ("arch", "options"),
    [("test_efficientnet", {}), ("test_vit", {"depth": 4}), ("test_convnext", {"depths": (1, 1, 1, 1)})],
)
def test_an_export_is_estimated_like_its_module(arch: str, options: dict[str, object]) -> None:
    """Activations, attention, and convolutions with and without batch normalisation."""
    spec = new_spec(arch, ("a", "b", "c"), None, None, ())
    module = timm.create_model(arch, num_classes=3, **options).eval()
    theirs = onnx_ops(to_onnx(module, spec, 20), spec.preprocess.size)
    ours = module_ops(module, spec.preprocess.size)
    assert totals(theirs) == totals(ours)
    for setup in (EAGER, COMPILED):
        first, second = (estimate(features(ops), setup).images_per_s for ops in (ours, theirs))
        assert second == pytest.approx(first, rel=0.02)


def test_a_fixed_batch_is_counted_per_image() -> None:
    def graph(batch: int | None) -> onnx.ModelProto:
        net = Builder()
        x = net.silu(net.conv("input", 3, 8))
        return net.model(net.pool(x, 0, 18), 8, batch, 18)

    one, four = (features(onnx_ops(graph(batch), 16)) for batch in (None, 4))
    assert one == four
    assert one["silu"] > 0
    assert "sigmoid" not in one


def test_an_input_of_unknown_shape_is_refused() -> None:
    net = Builder()
    model = net.model(net.pool(net.conv("input", 3, 8), 0, 18), 8, None, 18)
    node = onnx.helper.make_node("NonZero", ["input"], ["places"])
    cast = onnx.helper.make_node("Cast", ["places"], ["values"], to=onnx.TensorProto.FLOAT)
    conv = onnx.helper.make_node("Conv", ["values", "w0"], ["more"], "more")
    model.graph.node.extend([node, cast, conv])
    with pytest.raises(InputError, match="shape"):
        onnx_ops(model, 16)


def products(*nodes: tuple[str, ...], **weights: list[int]) -> list[Op]:
    """Operations of a graph of products on an image (1, 3, 4, 8): what each reads, and what it writes."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    image = helper.make_tensor_value_info("image", kind, [1, 3, 4, 8])
    graph = helper.make_graph(
        [helper.make_node("MatMul", names[:2], names[2:]) for names in nodes],
        "products",
        [image],
        [helper.make_tensor_value_info(nodes[-1][-1], kind, None)],
        [helper.make_tensor(name, kind, dims, np.ones(math.prod(dims))) for name, dims in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnx_ops(model, 8)


def test_products_with_vectors_and_stacks_are_counted() -> None:
    (vector,) = products(("image", "w", "y"), w=[8])
    assert (vector.kind, vector.writes[1], vector.macs) == ("linear", 3 * 4, 3 * 4 * 8)
    assert (vector.depth, vector.width, vector.weights) == (8, 1, 8)
    (stack,) = products(("image", "w", "y"), w=[3, 8, 5])
    assert (stack.writes[1], stack.macs, stack.weights) == (3 * 4 * 5, 3 * 4 * 5 * 8, 3 * 8 * 5)
    (repeated,) = products(("image", "w", "y"), w=[2, 1, 8, 5])
    assert (repeated.writes[1], repeated.macs) == (2 * 3 * 4 * 5, 2 * 3 * 4 * 5 * 8)
    (left,) = products(("w", "image", "y"), w=[6, 4])
    assert (left.kind, left.writes[1], left.macs, left.weights) == ("linear", 3 * 6 * 8, 3 * 6 * 8 * 4, 24)
    _, row = products(("image", "w", "y"), ("v", "y", "z"), w=[8], v=[3])
    assert (row.writes[1], row.macs) == (4, 4 * 3)
    assert features([vector, stack])["linear_macs"] == vector.macs + stack.macs


def test_a_product_with_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be counted"):
        products(("image", "w", "y"), w=[8, 0])


def test_an_operator_of_unknown_cost_is_named() -> None:
    net = Builder()
    model = net.model(net.pool(net.op("Selu", net.conv("input", 3, 8)), 0, 18), 8, None, 18)
    ops = onnx_ops(model, 16)
    assert unknown_kinds(ops) == ["Selu"]
    plain, marked = (estimate(features(ops), EAGER, unknown) for unknown in ((), unknown_kinds(ops)))
    assert not any("Selu" in text for text in plain.beyond)
    assert any("Selu" in text for text in marked.beyond)


def toy(costs: tuple[float, float], families: int = 6, rows: int = 20) -> Measured:
    """Networks whose time is a sum of MACs and bytes; the last family is ten times slower."""
    rng = np.random.default_rng(0)
    amounts = rng.uniform(1, 10, (families * rows, 2))
    names = np.repeat([f"f{i}" for i in range(families)], rows)
    ms = amounts @ costs * np.where(names == f"f{families - 1}", 10, 1)
    numbers = np.arange(len(ms))
    networks = Networks(numbers.astype(str), numbers, names, ("conv_macs", "relu"), amounts)
    return Measured(networks, ms, np.full(len(ms), 8))


def test_the_fit_finds_the_costs() -> None:
    rows = toy((0.3, 0.02))
    terms = Terms.of(rows.networks.features, SETUPS[EAGER])
    assert terms.groups == ("arithmetic", "memory")
    amounts = terms.amounts(rows.networks, rows.batch)
    good = np.flatnonzero(rows.networks.families != "f5")
    costs = fit(amounts[good], terms.groups, rows.ms[good], STIFFNESS[0])
    assert costs == pytest.approx([0.3, 0.02], rel=0.05)


def test_a_term_that_nothing_tells_about_costs_what_its_like_does() -> None:
    rng = np.random.default_rng(0)
    amounts = np.c_[rng.uniform(1, 10, (50, 2)), np.zeros(50)]
    costs = fit(amounts, ("memory", "arithmetic", "memory"), amounts @ [0.5, 2.0, 0.0], 0.3)
    assert costs[2] == pytest.approx(costs[0], rel=0.3)


def test_a_family_that_is_left_out_tells_nothing_of_itself() -> None:
    rows = toy((0.3, 0.02))
    slow = rows.networks.families == "f5"
    errors = held_out(rows, SETUPS[EAGER])
    assert np.exp(errors.residuals[slow]) == pytest.approx(0.1, rel=0.1)
    # Nor does its error choose the stiffness that it is estimated with.
    changed = Measured(rows.networks, np.where(slow, rows.ms * 3, rows.ms), rows.batch)
    again = held_out(changed, SETUPS[EAGER])
    assert again.residuals[slow] == pytest.approx(errors.residuals[slow] - np.log(3))
    assert best_stiffness(errors) in STIFFNESS


def test_a_family_left_out_is_absent_from_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = toy((0.3, 0.02), families=3, rows=4), []

    def spy(amounts, groups, ms, stiffness):
        seen.append(set(ms.tolist()))
        return np.ones(amounts.shape[1])

    monkeypatch.setattr(estimate_fit, "fit", spy)
    held_out(rows, SETUPS[EAGER])
    per_family = [set(rows.ms[rows.networks.families == f"f{i}"].tolist()) for i in range(3)]
    expected = [set().union(*per_family) - one for one in per_family for _ in STIFFNESS]
    assert seen == expected


def test_stored_costs_are_what_is_fitted() -> None:
    """Of one file: the benchmark compares all, and the errors too."""
    rows = measured(EAGER)
    terms = Terms.of(rows.networks.features, SETUPS[EAGER])
    found = stored()[EAGER]
    amounts = terms.amounts(rows.networks, rows.batch)
    costs = fit(amounts, terms.groups, rows.ms, found["stiffness"])
    assert costs.tolist() == pytest.approx([found["ms"][name] for name in terms.names], rel=1e-3)
    errors = relative(np.log(amounts @ costs / rows.ms))
    assert np.median(errors) < found["median_error"]  # of networks that were seen
    assert found["median_error"] <= 0.10
    assert found["mape"] <= 0.13
    assert len(rows.ms) == found["networks"]


def test_calibrate_says_what_the_errors_say() -> None:
    rows = measured(EAGER)
    residuals = np.linspace(-0.2, 0.1, len(rows.ms))
    errors = estimate_fit.HeldOut(np.stack([residuals] * len(STIFFNESS)), residuals)
    found = calibrate(EAGER, errors)
    assert found["range_90"] == pytest.approx(np.exp([-0.185, 0.085]).tolist(), rel=1e-3)
    assert found["median_error"] == pytest.approx(np.median(relative(residuals)))


def test_errors_are_those_of_the_images_per_second() -> None:
    """Half the time is twice the images per second: 100 % off; twice the time is half of them: 50 %."""
    assert relative(np.log([0.5, 1.0, 2.0])).tolist() == pytest.approx([1.0, 0.0, 0.5])


@pytest.mark.parametrize("setup", SETUPS)
def test_every_setup_has_throughputs_and_costs(setup: str) -> None:
    rows, found = measured(setup), stored()[setup]
    assert len(rows.ms) == found["networks"] > 700
    assert found["range_90"][0] < 1 < found["range_90"][1]
    assert np.isfinite(rows.ms).all()


def test_no_row_has_a_twin_in_another_family() -> None:
    """Two networks are twins when neither their MACs nor their bytes differ by 10 %, kind by kind."""
    networks = measured(EAGER).networks
    macs = [f"{kind}_macs" for kind in ("conv", "pointwise", "grouped", "depthwise", "linear", "attention")]
    kept = [name for name in networks.features if not name.startswith("fused/")]
    others = ("launches", "weights", "params", "macs", "activations")
    moved = [
        name for name in kept if name not in others and not name.endswith(("_macs", "_tiled", "_excess"))
    ]
    distance = np.zeros((len(networks.names),) * 2, np.float32)
    for columns in (macs, moved):
        values = np.stack([networks.column(name) for name in columns], 1).astype(np.float32)
        totals = values.sum(1)
        off = sum(np.abs(column[:, None] - column) for column in values.T)
        distance = np.maximum(distance, off / np.maximum(totals[:, None], totals))
    apart = networks.families[:, None] != networks.families
    assert distance[apart].min() > 0.1
    assert distance[~apart & ~np.eye(len(distance), dtype=bool)].min() < 0.01  # twins exist, within families


def test_kin_are_one_family() -> None:
    assert family_of("deit") == family_of("vision_transformer")
    assert family_of("byobnet") == family_of("resnet")
    assert family_of("regnet") == "regnet"


def test_an_estimate_is_near_a_measurement() -> None:
    """Of a network whose family the fit has seen."""
    rows = measured(EAGER)
    place = rows.networks.names.tolist().index("efficientnet_b0")
    found = estimate(counted("efficientnet_b0", int(rows.networks.sizes[place])), EAGER)
    assert found.images_per_s == pytest.approx(1000 / rows.ms[place], rel=0.1)
    assert found.range_90[0] < found.images_per_s < found.range_90[1]
    assert found.beyond == ()


def test_more_work_takes_longer_and_compiling_helps() -> None:
    b0, b1 = counted("b0", 224), counted("b1", 240)
    assert estimate(b1, EAGER).images_per_s < estimate(b0, EAGER).images_per_s
    assert estimate(b0, COMPILED).images_per_s > 1.3 * estimate(b0, EAGER).images_per_s


def test_an_extrapolation_says_so_and_is_wider() -> None:
    usual, odd = estimate(counted("b0", 224), EAGER), estimate({"sigmoid": 1e9, "launches": 5}, EAGER)
    assert any("sigmoid" in reason for reason in odd.beyond)
    widths = [np.log(found.range_90[1] / found.range_90[0]) for found in (usual, odd)]
    assert widths[1] == pytest.approx(2 * widths[0])


def test_the_newest_setups_are_chosen() -> None:
    names = [SETUPS[key].name for key in choose((), None, ())]
    assert names == [
        "rtx5090-nchw-eager-2.9",
        "rtx5090-nchw-compiled-2.9",
        "rtx4090-nchw-eager-2.9",
        "rtx4090-nchw-compiled-2.9",
        "rtx3090-nchw-eager-2.4",
    ]
    assert [SETUPS[key].name for key in choose(("rtx4090",), True, ())] == ["rtx4090-nchw-compiled-2.9"]
    assert all(SETUPS[key].is_offered for key in choose((), None, ()))
    assert choose(("rtx3090",), True, ()) == []
    assert gpus() == ["rtx5090", "rtx4090", "rtx3090"]
