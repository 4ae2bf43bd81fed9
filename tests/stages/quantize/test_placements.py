"""Where the placements for the two CPU runtimes put Q/DQ, and what the runtimes make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from optkit.core import discover, machine
from optkit.core.types import Artifact
from optkit.graph.lint.base import Severity, lint, lint_file
from optkit.graph.lint.execution import integer_share, openvino_share
from optkit.graph.qdq import QdqPlan, insert_qdq
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.runtimes.tensorrt import build_engine
from optkit.stages.quantize.config import PLACEMENTS
from tests.small_networks import Builder, gated_network, residual_network
from tests.stages.support import TINY, run_steps


def separable_network(activation: str, groups: int = 16) -> onnx.ModelProto:
    """Conv, Conv in `groups`, each with its activation, their sum, Conv, pooling, Gemm: 3 Conv."""
    b = Builder()

    def activate(x: str) -> str:
        return b.silu(x) if activation == "SiLU" else b.op(activation, x)

    stem = activate(b.conv("input", 3, 16))
    x = b.op("Add", activate(b.conv(stem, 16, 16, groups=groups)), stem)
    x = b.pool(activate(b.conv(x, 16, 32, kernel=1)), 0, 20)
    weight, bias = b.rng.standard_normal((4, 32)), b.rng.standard_normal(4)
    x = b.op("Gemm", x, *(b.constant(v.astype(np.float32)) for v in (weight, bias)), transB=1)
    return b.model(x, 4, None, 20)


def placed(target: str, network: onnx.ModelProto) -> tuple[onnx.ModelProto, QdqPlan, onnx.ModelProto]:
    """The prepared network, its plan and the INT8 file with plausible ranges."""
    model = prepare(network)
    view = GraphView(model)
    plan = discover.load(PLACEMENTS, target, "target").plan(view)
    clipped = {name for name, maker in view.producer.items() if maker.op_type in ("Relu", "Clip")}
    ranges = {name: (0.0, 6.0) if name in clipped else (-3.0, 3.0) for name in plan.observed()}
    return model, plan, insert_qdq(model, plan, ranges)


def quantized_ops(model: onnx.ModelProto, plan: QdqPlan) -> list[str]:
    return sorted(node.op_type for node in model.graph.node if node.name in plan.nodes)


NETWORKS = [
    residual_network,
    gated_network,
    lambda: separable_network("SiLU"),
    lambda: separable_network("HardSwish"),
]


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("network", NETWORKS, ids=["residual", "gated", "silu", "hardswish"])
def test_the_linter_finds_nothing(target: str, network: Callable[[], onnx.ModelProto]) -> None:
    _, _, quantized = placed(target, network())
    assert [found for found in lint(quantized, target) if found.severity is not Severity.NOTE] == []


@pytest.mark.parametrize("network", NETWORKS, ids=["residual", "gated", "silu", "hardswish"])
def test_openvino_runs_every_planned_convolution_in_integers(network: Callable[[], onnx.ModelProto]) -> None:
    pytest.importorskip("openvino", reason="openvino is an extra: optkit[cpu]")
    model, plan, quantized = placed("openvino", network())
    convolutions = {node.name for node in model.graph.node if node.op_type == "Conv"}
    share = openvino_share(quantized)
    assert set(share["integer"]) == convolutions & plan.nodes
    assert set(share["float"]) == convolutions & plan.left.keys()


@pytest.mark.parametrize("activation", ["Relu", "SiLU", "HardSwish"])
def test_openvino_starts_in_float_before_a_depthwise_convolution(activation: str) -> None:
    for groups, starts_in_float in ((16, True), (1, False)):
        model, plan, _ = placed("openvino", separable_network(activation, groups))
        first, second, third = (node.name for node in model.graph.node if node.op_type == "Conv")
        assert [name in plan.left for name in (first, second, third)] == [starts_in_float] * 2 + [False]


def test_openvino_reads_codes_only_where_they_cost_no_conversion() -> None:
    model, plan, quantized = placed("openvino", gated_network())
    assert quantized_ops(model, plan) == ["Conv"] * 4 + ["MatMul"]
    readers = {reader for names in plan.edges.values() for reader in names}
    assert readers == plan.nodes  # SiLU, gate, sum and pooling read floats
    assert not plan.grid.symmetric
    assert not plan.quantize_bias
    assert any(tensor.name == "w1" for tensor in quantized.graph.initializer)  # the first bias, as it was


def test_openvino_shares_the_codes_of_a_relu_with_the_residual_sum() -> None:
    model, plan, _ = placed("openvino", separable_network("Relu", groups=1))
    (total,) = (node for node in model.graph.node if node.op_type == "Add")
    assert total.name in plan.nodes
    assert [total.name in plan.edges.get(name, ()) for name in total.input] == [False, True]
    model, plan, _ = placed("openvino", separable_network("SiLU", groups=1))
    (total,) = (node for node in model.graph.node if node.op_type == "Add")
    assert "convolution" in plan.left[total.name]


def test_openvino_pools_the_codes_of_a_relu_with_one_range() -> None:
    b = Builder()
    x = b.op("MaxPool", b.op("Relu", b.conv("input", 3, 16)), kernel_shape=[2, 2], strides=[2, 2])
    x = b.pool(b.conv(x, 16, 4), 0, 20)
    model, plan, _ = placed("openvino", b.model(b.op("Flatten", x), 4, None, 20))
    assert quantized_ops(model, plan) == ["Conv", "Conv", "MaxPool"]
    (pool,) = (node for node in model.graph.node if node.op_type == "MaxPool")
    assert plan.same_range == {pool.output[0]: pool.input[0]}


@pytest.mark.parametrize("activation", ["SiLU", "HardSwish"])
def test_onnxruntime_starts_in_float_where_that_is_faster(activation: str) -> None:
    model, plan, quantized = placed("onnxruntime", separable_network(activation))
    first, second, third = (node.name for node in model.graph.node if node.op_type == "Conv")
    assert {first, second} <= plan.left.keys()
    assert "input" not in plan.edges
    assert integer_share(quantized)["integer"] == [third]
    readers = {reader for names in plan.edges.values() for reader in names}
    assert second not in readers  # the sum alone reads the stem's codes


@pytest.mark.parametrize(
    "network", [separable_network("Relu"), separable_network("SiLU", groups=1)], ids=["relu", "dense"]
)
def test_onnxruntime_starts_in_integers_where_that_is_as_fast(network: onnx.ModelProto) -> None:
    _, _, quantized = placed("onnxruntime", network)
    assert integer_share(quantized)["share"] == 1.0


@pytest.mark.parametrize(("activation", "floor"), [("SiLU", -4.0), ("HardSwish", -3.0)])
def test_onnxruntime_spends_no_codes_below_a_closed_gate(activation: str, floor: float) -> None:
    model, plan, _ = placed("onnxruntime", separable_network(activation, groups=1))
    view = GraphView(model)
    gated = [name for name in map(view.gated_by_itself, view.nodes) if name is not None]
    assert plan.floors == {name: pytest.approx(floor) for name in gated}
    far, near = (plan.scales(dict.fromkeys(plan.observed(), (low, 6.0))) for low in (-50.0, floor))
    assert [far[name][1] for name in gated] == [near[name][1] for name in gated]


def test_onnxruntime_keeps_low_values_that_somebody_else_reads() -> None:
    b = Builder()
    x = b.conv("input", 3, 16)
    x = b.op("Add", b.op("HardSwish", x), x)
    _, plan, _ = placed("onnxruntime", b.model(b.op("Flatten", b.pool(b.conv(x, 16, 4), 1, 20)), 4, None, 20))
    assert plan.floors == {}


def test_onnxruntime_keeps_low_values_of_what_shares_its_range() -> None:
    """Of a pooled map, whose range is that of the map, which a convolution reads too."""
    b = Builder()
    x = b.conv("input", 3, 16)
    pooled = b.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = b.op("Add", b.op("Mul", pooled, b.op("HardSigmoid", pooled)), b.conv(x, 16, 16))
    model = b.model(b.op("Flatten", b.pool(b.conv(x, 16, 4), 1, 20)), 4, None, 20)
    _, plan, _ = placed("onnxruntime", model)
    assert plan.same_range
    assert plan.floors == {}


TARGETS = ("onnxruntime", "openvino", "tensorrt")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """What `optkit quantize --target T` writes of a small EfficientNet, by T."""
    steps: dict[str, Any] = {
        "trained": {"stage": "finetune", **TINY, "train": {"epochs": 1}},
        "onnx": {"stage": "export", "model": "trained"},
    }
    for target in TARGETS:
        steps[target] = {"stage": "quantize", "model": "onnx", "target": target, "calibration_images": 16}
    return run_steps(tmp_path_factory.mktemp("written"), steps)


@pytest.mark.parametrize("target", TARGETS)
def test_the_linter_finds_nothing_in_a_written_efficientnet(
    written: dict[str, Artifact], target: str
) -> None:
    findings = lint_file(written[target].file, target).findings
    assert [found for found in findings if found.severity is not Severity.NOTE] == []
    assert "not-quantized" not in {found.rule for found in findings}


@pytest.mark.skipif(
    (machine.tensorrt() or ("",))[0] != "tensorrt_rtx", reason="tensorrt_rtx is not installed"
)
@pytest.mark.parametrize("capability", ["SM80", "SM86", "SM89", "SM120"])
def test_a_written_efficientnet_becomes_an_engine(
    written: dict[str, Artifact], capability: str, tmp_path: Path
) -> None:
    facts = build_engine(written["tensorrt"].file, tmp_path / "engine.plan", capability, 4, 32)
    assert facts["compute_capability"] == [capability]
