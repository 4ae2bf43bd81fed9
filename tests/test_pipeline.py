"""Planning, keys, running, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optkit import pipeline
from optkit.core.errors import InputError, MissingError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.store import Store
from optkit.core.types import Format
from optkit.recipe import recipe_from_value
from tests.conftest import small_classifier


def make_plan(tmp_path: Path, steps: dict[str, Any], **top: Any) -> pipeline.Plan:
    recipe = recipe_from_value({"name": "test", "steps": steps, **top}, "test")
    return pipeline.plan(recipe, Store(tmp_path / "store"))


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    small_classifier(path)
    return path


CHAIN = {"ft": {"stage": "finetune"}, "small": {"stage": "prune", "model": "ft"}}


def test_keys_follow_config_inputs_and_seed(tmp_path: Path) -> None:
    base = make_plan(tmp_path, CHAIN)
    same = make_plan(tmp_path, CHAIN)
    assert [step.key for step in base.steps.values()] == [step.key for step in same.steps.values()]
    seeded = make_plan(tmp_path, CHAIN, seed=1)
    assert seeded.steps["ft"].key != base.steps["ft"].key
    changed = make_plan(tmp_path, {**CHAIN, "ft": {"stage": "finetune", "train": {"epochs": 1}}})
    assert changed.steps["small"].key != base.steps["small"].key, "a changed input changes what follows"
    narrower = make_plan(tmp_path, {**CHAIN, "small": {"stage": "prune", "model": "ft", "ratio": 0.1}})
    assert narrower.steps["ft"].key == base.steps["ft"].key
    assert narrower.steps["small"].key != base.steps["small"].key


def test_the_recipes_data_reaches_every_step(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, CHAIN, data="synthetic")
    assert {step.config.data.path for step in plan.steps.values()} == {"synthetic"}  # type: ignore[attr-defined]


def test_a_steps_data_options_are_added_to_the_recipes(tmp_path: Path) -> None:
    steps = {
        "a": {"stage": "finetune", "data": {"val_fraction": 0.5}},
        "b": {"stage": "finetune", "data": "digits"},
    }
    plan = make_plan(tmp_path, steps, data="synthetic")
    data = [step.config.data for step in plan.steps.values()]  # type: ignore[attr-defined]
    assert (data[0].path, data[0].val_fraction) == ("synthetic", 0.5)
    assert data[1].path == "digits"


def test_data_options_without_data_are_refused(tmp_path: Path, onnx_file: Path) -> None:
    steps = {"bench": {"models": [str(onnx_file)], "data": {"strict": True}}}
    with pytest.raises(UsageError, match="no data"):
        make_plan(tmp_path, steps)


@pytest.mark.parametrize(
    ("steps", "error", "message", "hint"),
    [
        ({"a": {"stage": "finetunee"}}, UsageError, "Unknown stage", "finetune"),
        ({"a": {"stage": "finetune", "archh": "b0"}}, UsageError, "Unknown key 'archh'", "arch"),
        ({"a": {"stage": "finetune", "train": {"epoch": 1}}}, UsageError, "Unknown key 'train.epoch'", ""),
        ({"a": {"stage": "finetune", "train": {"epochs": -1}}}, UsageError, "epochs", ""),
        ({"a": {"stage": "prune"}}, UsageError, "lacks 'model'", ""),
        ({"a": {"stage": "prune", "model": "nowhere"}}, InputError, "no such step, folder or file", ""),
        ({"a": {"stage": "prune", "model": "b"}, "b": {"stage": "finetune"}}, UsageError, "later", ""),
        (
            {"a": {"stage": "finetune"}, "b": {"stage": "quantize", "model": "a"}},
            UsageError,
            "torch",
            "export",
        ),
        ({"a": {"stage": "finetune", "data": "nowhere/"}}, InputError, "no data folder", ""),
        (
            {"a": {"stage": "finetune"}, "b": {"stage": "distill", "teacher": "a", "loss": "kll"}},
            UsageError,
            "Unknown distillation loss",
            "kl",
        ),
        (
            {"a": {"stage": "finetune"}, "b": {"stage": "prune", "model": "a", "criterion": "tayler"}},
            UsageError,
            "Unknown pruning criterion",
            "taylor",
        ),
    ],
)
def test_mistakes_are_found_before_any_work(
    tmp_path: Path, steps: dict[str, Any], error: type[Exception], message: str, hint: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        make_plan(tmp_path, steps)
    assert hint in caught.value.hint  # type: ignore[attr-defined]
    assert not (tmp_path / "store").exists()


def test_an_unknown_architecture_stops_the_run_before_its_first_step(tmp_path: Path) -> None:
    steps = {"good": {"stage": "finetune", "data": "synthetic"}, "bad": {"stage": "finetune", "arch": "b00"}}
    with pytest.raises(UsageError, match="Unknown architecture 'b00'") as caught:
        pipeline.run(make_plan(tmp_path, steps), SilentReporter())
    assert "b0" in caught.value.hint
    assert list((tmp_path / "store").glob("*")) == []


def test_files_become_load_steps_and_run_once(tmp_path: Path, onnx_file: Path) -> None:
    steps = {"cost": {"stage": "cost", "model": str(onnx_file)}}
    plan = make_plan(tmp_path, steps)
    assert [step.stage for step in plan.steps.values()] == ["load", "cost"]
    assert plan.steps[str(onnx_file)].format is Format.ONNX
    reporter = SilentReporter()
    artifacts = pipeline.run(plan, reporter)
    assert artifacts["cost"].manifest.metrics["macs"] > 0
    assert any("ASSUMED" in warning for warning in artifacts[str(onnx_file)].manifest.warnings)
    again = make_plan(tmp_path, steps)
    assert all(step.done for step in again.steps.values())
    onnx_file.write_bytes(small_classifier(classes=7).SerializeToString())
    assert not any(step.done for step in make_plan(tmp_path, steps).steps.values())


def test_fresh_steps_are_done_again(tmp_path: Path, onnx_file: Path) -> None:
    steps = {"cost": {"stage": "cost", "model": str(onnx_file)}}
    first = pipeline.run(make_plan(tmp_path, steps), SilentReporter())["cost"]
    marker = first.path / "marker"
    marker.write_text("old")
    pipeline.run(make_plan(tmp_path, steps), SilentReporter())
    assert marker.exists()
    pipeline.run(make_plan(tmp_path, steps), SilentReporter(), fresh=frozenset({"cost"}))
    assert not marker.exists()


def test_what_was_made_again_is_measured_again(tmp_path: Path, onnx_file: Path) -> None:
    """A model made again is the same one, but a measurement of a measurement made again is another."""
    steps = {"cost": {"stage": "cost", "model": str(onnx_file)}}
    first = pipeline.run(make_plan(tmp_path, steps), SilentReporter())["cost"]
    marker = first.path / "marker"
    marker.write_text("old")
    pipeline.run(make_plan(tmp_path, steps), SilentReporter(), fresh=frozenset({str(onnx_file)}))
    assert not marker.exists()


def test_a_budget_judges_the_last_measurement(tmp_path: Path, onnx_file: Path) -> None:
    bench = {"stage": "bench", "models": [str(onnx_file)]}
    plan = make_plan(tmp_path, {"a": bench, "b": bench}, budget={"max_bytes": 3})
    assert plan.steps["gate"].inputs == {"bench": ("b",)}
    plan = make_plan(tmp_path, {"a": bench, "b": bench}, budget={"max_bytes": 3, "bench": "a"})
    assert plan.steps["gate"].inputs == {"bench": ("a",)}
    gate = {"bench": "a", "max_bytes": 4}
    plan = make_plan(tmp_path, {"a": bench, "gate": gate}, budget={"max_bytes": 3})
    assert list(plan.steps)[1:] == ["a", "gate", "budget"]


def test_a_changed_given_artifact_is_refused(tmp_path: Path, onnx_file: Path) -> None:
    made = pipeline.run(
        make_plan(tmp_path, {"m": {"stage": "load", "path": str(onnx_file)}}), SilentReporter()
    )["m"]
    made.file.write_bytes(made.file.read_bytes() + b"\0")
    plan = make_plan(tmp_path, {"cost": {"stage": "cost", "model": str(made.path)}})
    with pytest.raises(InputError, match="not what its manifest says"):
        pipeline.run(plan, SilentReporter())


def test_missing_packages_are_found_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optkit.core.discover.installed", lambda module: module != "onnxruntime")
    steps = {
        "a": {"stage": "finetune", "data": "synthetic"},
        "b": {"stage": "export", "model": "a"},
        "c": {"stage": "quantize", "model": "b"},
    }
    with pytest.raises(MissingError, match="onnxruntime") as caught:
        make_plan(tmp_path, steps)
    assert "optkit[cpu]" in caught.value.hint
