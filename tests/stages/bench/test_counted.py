"""Work, parameters and activations: counted where torch is."""

from __future__ import annotations

import pytest

from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Preprocess
from optkit.measure.counts import Cost
from optkit.stages.bench.candidate import INTERRUPTED, Candidate
from optkit.stages.bench.counted import count_modules, counted
from optkit.stages.bench.process import CrashedError

COST = Cost(
    macs=7,
    params=5,
    activations=3,
    weight_bytes=20,
    activation_bytes=12,
    layers=[],
    not_counted={},
    shapes={},
)


class Counting:
    """A process that answers, or dies."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def call(self, command):
        self.calls.append(command)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def candidate(key: str, answer: object, **metrics: int) -> Candidate:
    spec = ModelSpec(arch="a", num_classes=2, class_names=("a", "b"), preprocess=Preprocess(size=8))
    manifest = Manifest(stage="finetune", key=key, format=Format.TORCH, spec=spec, metrics=metrics)
    process = Counting(answer) if answer is not None else None
    return Candidate(key, Artifact(key, None, manifest), "pytorch", process=process)


def test_a_model_is_counted_once_whatever_runtimes_it_is_in():
    eager, compiled, dead = candidate("k", COST), candidate("k", COST), candidate("k", None)
    count_modules([dead, eager, compiled])
    assert (eager.process.calls, compiled.process.calls) == (["cost"], [])
    for one in (eager, compiled, dead):
        gaps = {}
        assert counted(one, gaps) == {"macs": 7, "params": 5, "activations": 3}
        assert gaps == {}


def test_what_the_manifest_says_is_not_counted():
    known = candidate("k", COST, macs=1, params=2, activations=3)
    count_modules([known])
    assert known.process.calls == []
    assert counted(known, {}) == {"macs": 1, "params": 2, "activations": 3}


def test_what_is_known_has_no_gap():
    one = candidate("k", None, macs=1)
    gaps = {}
    assert counted(one, gaps)["macs"] == 1
    assert gaps.keys() == {"params", "activations"}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (CrashedError("The process of the model crashed.", why="It was ended by SIGKILL."), "SIGKILL"),
        (None, INTERRUPTED),
    ],
)
def test_without_a_count_the_reason_is_told_and_the_model_has_not_failed(answer, why):
    one = candidate("k", answer)
    count_modules([one])
    gaps = {}
    assert counted(one, gaps) == {"macs": None, "params": None, "activations": None}
    assert gaps.keys() == {"macs", "params", "activations"}
    assert all(why in text for text in gaps.values())
    assert not one.failed
