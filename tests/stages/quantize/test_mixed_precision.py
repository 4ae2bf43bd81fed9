from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import onnx
import pytest

from optkit.graph.onnx_file import read_onnx
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.placement import onnxruntime as placement
from optkit.stages.quantize.placement import tensorrt as tensorrt_placement
from optkit.stages.quantize.recovery import mixed_precision
from optkit.stages.quantize.refit import refit_layers
from tests.small_networks import residual_network
from tests.stages.quantize.support import calibrated, sqnr_db, workbench
from tests.stages.quantize.test_stage import quantization, quantize


@pytest.mark.parametrize("placement", [placement, tensorrt_placement])
def test_layers_are_freed_step_by_step(placement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_precision, "MAX_SHARE", 1.0)
    model = prepare(residual_network())
    bench = workbench(model)
    candidate = calibrated(model, bench, placement)
    view = GraphView(model)
    layers = {node.name for node in view.nodes if view.weight_axis(node) is not None}
    counts = [len(candidate.plan.nodes & layers)]
    while (found := mixed_precision.improve(candidate, bench)) is not None:
        candidate, note = found
        counts.append(len(candidate.plan.nodes & layers))
        assert f"layers freed: {counts[0] - counts[-1]};" in note
        onnx.checker.check_model(candidate.build(), full_check=True)
        reasons = [reason for reason in candidate.plan.left.values() if reason == mixed_precision.REASON]
        assert len(reasons) == counts[0] - counts[-1]
    assert counts[-1] == 0
    assert all(before > after for before, after in pairwise(counts))


@pytest.mark.parametrize(("gains", "freed"), [([1.0], 1), ([0.0, 1.0], 2), ([0.0, 0.0, 0.0], 3)])
def test_more_layers_are_freed_while_none_helps(
    gains: list[float], freed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four layers, three may be freed: one, two, then three."""
    model = prepare(residual_network())
    bench = workbench(model)
    candidate = calibrated(model, bench, placement)
    answers = iter(gains)
    monkeypatch.setattr(mixed_precision, "MAX_SHARE", 0.75)
    monkeypatch.setattr(mixed_precision, "paired_gain", lambda *_: (1.0, next(answers), 2.0))
    found, _ = mixed_precision.improve(candidate, bench)
    assert len(candidate.plan.nodes) - len(found.plan.nodes) == freed


def test_half_of_the_layers_stay_in_int8() -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    candidate = calibrated(model, bench, tensorrt_placement)
    view = GraphView(model)
    layers = {node.name for node in view.nodes if view.weight_axis(node) is not None}
    quantized = len(candidate.plan.nodes & layers)
    while (found := mixed_precision.improve(candidate, bench)) is not None:
        candidate = found[0]
    assert len(candidate.plan.nodes & layers) == quantized - quantized // 2


def test_mixed_precision_brings_the_logits_nearer_to_fp32() -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    before = calibrated(model, bench, tensorrt_placement)
    after, _ = mixed_precision.improve(before, bench)
    assert sqnr_db(after, bench) > sqnr_db(before, bench) + 0.5


def test_an_operator_in_float_gets_its_exact_weights_back() -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    fitted, _ = refit_layers(calibrated(model, bench, placement), bench, "fit", biases_only=False)
    freed, _ = mixed_precision.improve(fitted, bench)
    names = fitted.plan.nodes - freed.plan.nodes
    assert names
    for node in model.graph.node:
        if node.name in names:
            assert not {*node.input[1:]} & freed.fitted.keys()
            assert node.name not in freed.weight_scales


def test_an_integer_operator_keeps_codes_behind_it() -> None:
    """Else ONNX Runtime would compute it in floating point, too."""
    model = prepare(residual_network())
    view = GraphView(model)
    plan = placement.plan(view)
    second = [node for node in view.nodes if node.op_type == "Conv"][1]
    assert second.name in plan.without({second.name: "why"}, view).edges[second.input[0]]
    symmetric = tensorrt_placement.plan(view)
    assert second.name not in symmetric.without({second.name: "why"}, view).edges[second.input[0]]


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_layers_are_freed_until_the_budget_holds(tmp_path: Path, gain: float) -> None:
    """The file holds no Q/DQ round the layers that the manifest calls FP32."""
    options = {"target": "tensorrt", "calibrator": "minmax", "rungs": ("mixed_precision",)}
    plain = quantization(quantize(tmp_path / "plain", residual_network(), min_sqnr=-100, **options))
    wanted = plain["validation"]["sqnr_db"] + gain
    found = quantization(quantize(tmp_path / "mixed", residual_network(), min_sqnr=wanted, **options))
    assert found["budget"]["held"]
    assert found["validation"]["sqnr_db"] >= wanted
    assert {entry["rung"] for entry in found["ladder"][1:]} == {"mixed precision"}
    reached = [entry["validation"]["sqnr_db"] for entry in found["ladder"] if entry["kept"]]
    assert all(before < wanted for before in reached[:-1]), "no layer more than it takes"
    freed = {one["node"] for one in found["float"] if one["reason"] == mixed_precision.REASON}
    assert freed
    nodes = {node.name: node for node in read_onnx(tmp_path / "mixed" / "out" / "model.onnx").graph.node}
    assert not any(name.endswith(".dequantized") for one in freed for name in nodes[one].input)
