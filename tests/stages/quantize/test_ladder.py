from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import onnx
import pytest

from optkit.core import discover
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import Unsupported
from optkit.stages.quantize import ladder as ladder_module
from optkit.stages.quantize.budget import Checked
from optkit.stages.quantize.config import RUNGS, Config
from optkit.stages.quantize.fitting import fit_layers
from optkit.stages.quantize.ladder import Ladder, rungs
from optkit.stages.quantize.placement import onnxruntime as placement
from optkit.stages.quantize.placement import tensorrt as tensorrt_placement
from optkit.stages.quantize.recovery import mixed_precision
from tests.small_networks import residual_network
from tests.stages.quantize.test_fitting import calibrated, workbench


def climbed(config: Config, steps: dict[str, object], sqnr_db: list[float], monkeypatch) -> Ladder:
    """A ladder of made-up rungs; `sqnr_db` is what the check says, kept file by kept file."""
    model = prepare(residual_network())
    bench = workbench(model)
    answers = iter(sqnr_db)

    def check(_: object) -> Checked:
        return Checked(next(answers), agreement=0.9, drop=1.5, interval=(-1.0, 4.0))

    modules = {
        name: SimpleNamespace(ORDER=10 * i, improve=step) for i, (name, step) in enumerate(steps.items())
    }
    load = discover.load
    found = {
        "load": lambda package, name, kind: modules[name] if package == RUNGS else load(package, name, kind)
    }
    monkeypatch.setattr(ladder_module, "discover", SimpleNamespace(**found))
    monkeypatch.setattr(ladder_module, "rungs", lambda _: list(steps))
    ladder = Ladder(calibrated(model, bench, placement), bench, config, check)
    ladder.climb()
    return ladder


def widened(factor: float):
    """A rung that changes every range by a factor: 1.05 hardly hurts, 20 ruins the file."""

    def improve(candidate, bench):
        ranges = {name: (low * factor, high * factor) for name, (low, high) in candidate.ranges.items()}
        return replace(candidate, ranges=ranges), f"times {factor}"

    return improve


def test_what_does_not_help_is_told_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"spoil": widened(20.0), "again": widened(30.0)}
    found = climbed(Config(min_sqnr=99), steps, [10.0], monkeypatch)
    assert [entry["rung"] for entry in found.entries] == ["calibration", "spoil", "again"]
    assert [entry["kept"] for entry in found.entries] == [True, False, False]
    assert found.entries[1]["sqnr_db"] < found.entries[0]["sqnr_db"]
    assert found.entries[1]["note"] == "times 20.0"
    assert (found.entries[0]["drop"], found.entries[1]["drop"]) == (1.5, None)
    assert not found.held


def test_every_rung_goes_on_from_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(candidate, bench):
        seen.append(candidate)
        return

    def improve(candidate, bench):
        return replace(candidate, plan=candidate.plan.only(set())), ""

    steps = {"spoil": widened(20.0), "first": look, "better": improve, "second": look}
    found = climbed(Config(min_sqnr=300), steps, [10.0, 20.0], monkeypatch)
    assert seen[0].ranges == seen[1].ranges  # not the spoilt ones
    assert seen[0].plan.nodes
    assert not seen[1].plan.nodes
    assert found.candidate is seen[1]
    assert found.entries[2]["note"] == "nothing that it could change"


def test_the_ladder_ends_when_the_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    found = climbed(Config(min_sqnr=9.5), {"never": widened(20.0)}, [10.0], monkeypatch)
    assert [entry["rung"] for entry in found.entries] == ["calibration"]
    assert found.held


def test_without_a_budget_all_rungs_are_climbed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = climbed(
        Config(rungs=("rounding",)), {"a": widened(20.0), "b": widened(20.0)}, [10.0], monkeypatch
    )
    assert len(found.entries) == 3
    assert not found.held


def test_a_network_that_a_rung_cannot_handle_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def improve(candidate, bench):
        raise Unsupported("no torch form of Einsum")

    found = climbed(Config(min_sqnr=99), {"a": improve}, [10.0], monkeypatch)
    assert found.entries[1] | {"seconds": 0} == {
        "rung": "a", "kept": False, "sqnr_db": None, "agreement": None, "drop": None, "seconds": 0,
        "note": "no torch form of Einsum",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "holds"),
    [
        ({"max_drop": 1.5}, True),
        ({"max_drop": 1.4}, False),
        ({"min_agreement": 0.9}, True),
        ({"min_agreement": 0.91}, False),
        ({"min_sqnr": 10}, True),
        ({"min_sqnr": 10.1}, False),
        ({"max_drop": 2, "min_sqnr": 11}, False),
    ],
)
def test_a_budget_holds_when_all_its_limits_do(limits: dict[str, float], holds: bool) -> None:
    assert Checked(10.0, agreement=0.9, drop=1.5, interval=(0.0, 3.0)).holds(Config(**limits)) is holds


def test_rungs_come_in_their_order_and_only_those_wanted() -> None:
    everything = rungs(Config())
    assert set(everything) == set(discover.names(RUNGS))
    assert everything.index("ranges") < everything.index("equalisation") < everything.index("rounding")
    assert rungs(Config(rungs=("rounding", "ranges"))) == ["ranges", "rounding"]


@pytest.mark.parametrize("placement", [placement, tensorrt_placement])
def test_mixed_precision_frees_one_layer_then_as_many_again(placement) -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    candidate = calibrated(model, bench, placement)
    view = GraphView(model)
    layers = {node.name for node in view.nodes if view.weight_axis(node) is not None}
    counts = [len(candidate.plan.nodes & layers)]
    for _ in range(3):
        candidate, note = mixed_precision.improve(candidate, bench)
        counts.append(len(candidate.plan.nodes & layers))
        assert f"{counts[0] - counts[-1]} layers" in note
        onnx.checker.check_model(candidate.build(), full_check=True)
        reasons = [reason for reason in candidate.plan.left.values() if reason == mixed_precision.REASON]
        assert len(reasons) == counts[0] - counts[-1]
    assert counts[0] - counts[1] == 1
    assert counts[1] - counts[2] == 1
    assert counts[2] - counts[3] == min(2, counts[2])


def test_mixed_precision_brings_the_logits_nearer_to_fp32() -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    before = calibrated(model, bench, tensorrt_placement)
    after, _ = mixed_precision.improve(before, bench)
    assert bench.score_of(after) > bench.score_of(before) + 0.5


def test_an_operator_in_float_gets_its_exact_weights_back() -> None:
    model = prepare(residual_network())
    bench = workbench(model)
    fitted, _ = fit_layers(calibrated(model, bench, placement), bench, "fit", biases_only=False)
    freed, _ = mixed_precision.improve(fitted, bench)
    (name,) = fitted.plan.nodes - freed.plan.nodes
    node = next(node for node in model.graph.node if node.name == name)
    assert not {*node.input[1:]} & freed.fitted.keys()
    assert name not in freed.weight_scales


def test_an_integer_operator_keeps_codes_behind_it() -> None:
    """Else ONNX Runtime would compute it in floating point, too."""
    model = prepare(residual_network())
    view = GraphView(model)
    plan = placement.plan(view)
    second = [node for node in view.nodes if node.op_type == "Conv"][1]
    assert second.name in plan.without({second.name: "why"}, view).edges[second.input[0]]
    symmetric = tensorrt_placement.plan(view)
    assert second.name not in symmetric.without({second.name: "why"}, view).edges[second.input[0]]
