from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from optkit.core import discover
from optkit.core.errors import InputError
from optkit.graph.qdq_prepare import prepare
from optkit.graph.torch_operators import Unsupported
from optkit.stages.quantize import ladder as ladder_module
from optkit.stages.quantize.budget import Checked
from optkit.stages.quantize.config import RUNGS, Config
from optkit.stages.quantize.ladder import Ladder, rungs
from optkit.stages.quantize.placement import onnxruntime as placement
from optkit.stages.quantize.workbench import Judged
from tests.small_networks import residual_network
from tests.stages.quantize.support import calibrated, workbench


def climbed(config: Config, steps: dict[str, object], checks: list[float], monkeypatch) -> Ladder:
    """A ladder of made-up rungs; `sqnr_db` is what the check says, kept file by kept file."""
    model = prepare(residual_network())
    bench = workbench(model)
    answers = iter(checks)

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


def test_a_rung_that_fails_leaves_what_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(candidate, bench):
        raise InputError("No training image can be decoded.", why="All are broken.", hint="Mend them.")

    found = climbed(Config(min_sqnr=99), {"fail": fail}, [10.0], monkeypatch)
    assert [entry["kept"] for entry in found.entries] == [True, False]
    assert found.entries[1]["note"] == "No training image can be decoded. All are broken."


def test_what_may_be_chance_is_told_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better for some images and worse for others, by hardly more on the whole."""
    plain = Judged.parity
    calls = iter([0.0, 0.1])

    def parity(self, model, io):
        score, sqnr_db = plain(self, model, io)
        return score, np.linspace(-10, 10, len(sqnr_db))[:: 1 if (gain := next(calls)) == 0 else -1] + gain

    monkeypatch.setattr(Judged, "parity", parity)
    found = climbed(Config(min_sqnr=99), {"luck": widened(1.0)}, [10.0], monkeypatch)
    assert not found.entries[1]["kept"]
    assert found.entries[1]["note"].startswith("times 1.0; +0.1 dB on 40 images may be chance (95 %: -")


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
        "rung": "a", "kept": False, "sqnr_db": None, "agreement": None, "drop": None, "validation": None, "seconds": 0,
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
    assert everything.index("equalisation") < everything.index("ranges") < everything.index("rounding")
    assert rungs(Config(rungs=("rounding", "ranges"))) == ["ranges", "rounding"]
