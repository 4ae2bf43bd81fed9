"""Evaluations and explanations are read out of manifests, and fill the table of results."""

from __future__ import annotations

import re
from typing import Any

import pytest

from optkit.core.errors import InputError
from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.headline import headline
from optkit.report.render import to_html

from .run_folder import CLASSES, RunFolder, bench_row, evaluation, latency

METRICS, DETAILS = evaluation(["cat", "dog"], images=100)


def _evaluate(run: RunFolder, key: str, name: str = "evaluate", **fields: Any) -> None:
    given = {"metrics": METRICS, "details": DETAILS, "config": {"split": "val"}, **fields}
    run.add(name, "evaluate", Format.RESULT, inputs={"model": [key]}, **given)


def test_headline_figures_and_their_intervals(tutorial: RunFolder) -> None:
    (found,) = collect(tutorial.path).evaluations
    assert (found.step, found.model, found.split, found.runtime, found.n) == (
        "evaluate",
        "model",
        "val",
        "onnxruntime",
        750,
    )
    assert [figure.name for figure in found.figures] == ["top1", "precision", "recall", "f1", "ece", "loss"]
    assert all(figure.interval for figure in found.figures)
    assert [row.name for row in found.classes] == list(CLASSES)
    assert len(found.mistakes) == 6


def test_a_bare_evaluation_is_enough(empty_run: RunFolder) -> None:
    key = empty_run.add("model", "finetune", Format.TORCH, size=1)
    _evaluate(empty_run, key, metrics={"top1": 0.5, "f1": None, "loss": "high"}, details={}, config={})
    (found,) = collect(empty_run.path).evaluations
    assert [figure.name for figure in found.figures] == ["top1"]
    assert (found.heat_map, found.confused, found.mistakes) == (None, (), ())


def test_confusions_come_from_the_answers_where_there_is_no_matrix(empty_run: RunFolder) -> None:
    key = empty_run.add("model", "finetune", Format.TORCH, size=1)
    _, details = evaluation([str(index) for index in range(150)], images=8)
    assert details["confusion"] is None
    _evaluate(empty_run, key, details=details)
    report = collect(empty_run.path)
    (found,) = report.evaluations
    assert found.heat_map is not None
    assert found.confused[0].n == 6
    kept = report.steps[-1].manifest.details
    assert "labels" not in kept, "the answers to single images stay in the manifest"
    assert "mistakes" in kept


def test_details_of_another_version_are_an_input_error(empty_run: RunFolder) -> None:
    key = empty_run.add("model", "finetune", Format.TORCH, size=1)
    _evaluate(empty_run, key, details={"mistakes": [{"file": "x"}]})
    with pytest.raises(InputError, match="'evaluate' cannot be read"):
        collect(empty_run.path)


def test_the_evaluation_of_a_model_nobody_benched_is_in_its_row(empty_run: RunFolder) -> None:
    own = {"top1": 0.4, "n": 10}
    key = empty_run.add("model", "finetune", Format.TORCH, size=1, metrics=own)
    assert [(row.top1, row.top1_step) for row in collect(empty_run.path).rows] == [(0.4, "model")]
    _evaluate(empty_run, key, name="on_train", config={"split": "train"})
    assert collect(empty_run.path).rows[0].top1 == 0.4, "training images say little"
    _evaluate(empty_run, key)
    report = collect(empty_run.path)
    (row,) = report.rows
    assert (row.top1, row.n, row.top1_step) == (METRICS["top1"], 200, "evaluate")
    assert not report.benched
    assert headline(report) == ["model (FP32 PyTorch): 99.5 % top-1 (95 %: 98.3 – 100.0 %) on 200 images."]


def test_an_evaluation_on_other_data_stays_out_of_the_table(empty_run: RunFolder) -> None:
    """The rows' own figures are of one data set; without any, the first evaluation's set is the table's."""
    photos, other = ({"data": {"path": path}, "split": "val"} for path in ("photos", "other"))
    one = empty_run.add("one", "load", Format.TORCH, size=1)
    two = empty_run.add("two", "load", Format.TORCH, size=1)
    _evaluate(empty_run, one, name="a", config=photos)
    _evaluate(empty_run, two, name="b", config=other)
    report = collect(empty_run.path)
    assert {row.name: row.top1_step for row in report.rows} == {"one": "a", "two": ""}
    assert len(report.evaluations) == 2
    empty_run.add("three", "finetune", Format.TORCH, size=1, config=other, metrics={"top1": 0.4, "n": 10})
    rows = {row.name: row.top1_step for row in collect(empty_run.path).rows}
    assert rows == {"one": "", "two": "b", "three": "three"}


@pytest.mark.parametrize(
    ("runtime", "top1", "expected"),
    [("onnxruntime", None, METRICS["top1"]), ("openvino", None, None), ("onnxruntime", 0.25, 0.25)],
)
def test_a_bench_row_takes_it_from_the_same_runtime_only(
    empty_run: RunFolder, runtime: str, top1: float | None, expected: float | None
) -> None:
    key = empty_run.add("model", "export", Format.ONNX, size=1)
    row = bench_row("model", key, runtime=runtime, latency_ms=latency(2.0), top1=top1)
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": [row]})
    _evaluate(empty_run, key)
    assert collect(empty_run.path).rows[0].top1 == expected


def test_explanations_name_their_models(tutorial: RunFolder) -> None:
    (found,) = collect(tutorial.path).explanations
    assert (found.models, len(found.maps), found.agreement) == (("model",), 6, ())


def test_the_agreement_of_two_models(tutorial: RunFolder) -> None:
    def compare(manifest: dict[str, Any]) -> None:
        manifest["metrics"] = {
            "n": 6, "agreement_n": 5, "pearson": 0.5, "pearson_interval": [-0.25, 0.75],
            "iou": None, "iou_interval": None, "prediction_agreement": 0.8,
            "prediction_agreement_interval": [0.4, 0.9],
        }  # fmt: skip

    (step,) = (one for one in collect(tutorial.path).steps if one.manifest.stage == "explain")
    tutorial.edit(step.name, compare)
    report = collect(tutorial.path)
    assert [figure.name for figure in report.explanations[0].agreement] == ["pearson", "prediction_agreement"]
    page = " ".join(re.sub("<[^>]+>", " ", to_html(report)).split())
    assert "Agreement of the two 5 images drawn at random" in page
    assert "correlation of the maps (Pearson) 0.500 95 %: -0.250 – 0.750" in page
    assert "same prediction 80.0 % 95 %: 40.0 – 90.0 %" in page
