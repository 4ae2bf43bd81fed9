"""Every rung of the recovery ladder keeps these promises, for every target and for little to work with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from optkit.core import discover
from optkit.core.progress import SilentReporter
from optkit.core.types import Context, Preprocess
from optkit.data.config import DataConfig
from optkit.data.load import load_data
from optkit.graph.qdq_prepare import prepare
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.config import PLACEMENTS, RUNGS, Config
from optkit.stages.quantize.execute import run_model
from optkit.stages.quantize.training import train_student
from optkit.stages.quantize.workbench import Workbench
from tests.small_networks import bottleneck_network, gated_network, residual_network
from tests.stages.quantize.support import calibrated, workbench

NAMES = discover.names(RUNGS)


@dataclass(frozen=True)
class Case:
    """A network for a target, and how many images there are to fit to."""

    target: str
    network: Callable[..., onnx.ModelProto]
    images: int = 20  # the last batch is a part of one
    batch: int | None = None


CASES = {
    **{f"{target}, bottlenecks": Case(target, bottleneck_network) for target in discover.names(PLACEMENTS)},
    "gates": Case("onnxruntime", gated_network),
    "fixed batch": Case("onnxruntime", residual_network, images=10, batch=4),
    "one image": Case("tensorrt", gated_network, images=1),
    "one image of a fixed batch": Case("openvino", residual_network, images=1, batch=4),
}


def start(case: Case, folder: Path) -> tuple[Candidate, Workbench]:
    model = prepare(case.network(batch=case.batch))
    data = load_data(DataConfig(path="synthetic"), SilentReporter())
    train = partial(
        train_student,
        dataset=replace(data, train=data.train.subset(np.arange(32))),
        preprocess=Preprocess(size=16),
        config=Config(data="synthetic", qat_lr=1e-3),
        context=Context(folder, SilentReporter()),
    )
    bench = workbench(model, case.images, train)
    return calibrated(model, bench, discover.load(PLACEMENTS, case.target, "target")), bench


def facts(candidate: Candidate) -> tuple[Any, ...]:
    """All that a rung could change in place."""
    return (
        candidate.model.SerializeToString(deterministic=True),
        copy.deepcopy(candidate.plan),
        dict(candidate.ranges),
        {name: value.tobytes() for name, value in candidate.fitted.items()},
        {name: value.tobytes() for name, value in candidate.weight_scales.items()},
        {name: (entry.low, entry.high, entry.histogram.counts.tobytes())
         for name, entry in candidate.observed.items()},
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", NAMES)
def test_a_rung_gives_a_file_that_works_and_leaves_what_it_was_given(
    name: str, case: Case, tmp_path: Path
) -> None:
    before, bench = start(case, tmp_path)
    known = facts(before)
    found = discover.load(RUNGS, name, "rung").improve(before, bench)
    assert facts(before) == known
    if found is None:
        return
    after, note = found
    assert note
    file = after.build()
    onnx.checker.check_model(file, full_check=True)
    logits = run_model(file, bench.io, bench.held.batches)
    assert logits.shape == bench.held.reference.shape
    assert np.isfinite(logits).all()
    assert [value.name for value in file.graph.input] == [value.name for value in before.model.graph.input]


@pytest.mark.parametrize("name", NAMES)
def test_a_rung_changes_the_file_where_there_is_something_to_change(name: str, tmp_path: Path) -> None:
    before, bench = start(CASES["onnxruntime, bottlenecks"], tmp_path)
    found = discover.load(RUNGS, name, "rung").improve(before, bench)
    assert found is not None
    files = [one.build().SerializeToString(deterministic=True) for one in (before, found[0])]
    assert files[0] != files[1]


def test_no_two_rungs_are_at_one_height() -> None:
    orders = [discover.load(RUNGS, name, "rung").ORDER for name in NAMES]
    assert len(set(orders)) == len(orders)
    assert all(isinstance(order, int) for order in orders)
