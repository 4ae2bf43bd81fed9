"""Every option of `optkit finetune` arrives at its place and acts: from the command line to the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from optkit.core.store import read_artifact
from optkit.core.types import Artifact
from tests.cli.support import optkit

BASE = (
    "finetune", "--data", "photos", "--arch", "test_efficientnet", "--weights", "scratch", "--size", "32",
    "--precision", "fp32", "--batch-size", "8", "--epochs", "1", "--warmup", "0",
)  # fmt: skip
PHASES = "[{unfreeze: head, epochs: 2, lr: 0.01}, {unfreeze: 1, epochs: 1, lr: 0.001}]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen cats and six dogs, as noise of two colours."""
    root = tmp_path_factory.mktemp("flags")
    rng = np.random.default_rng(0)
    for name, count, shift in (("cat", 16, 0), ("dog", 6, 90)):
        (root / "photos" / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 160, (40, 40, 3), np.uint8) + np.uint8(shift)
            Image.fromarray(pixels).save(root / "photos" / name / f"{index}.png")
    return root


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def train(*options: str) -> Artifact:
    """What `optkit finetune` makes with `options`."""
    done = optkit(*BASE, *options)
    assert done.code == 0, done.err
    return read_artifact(Path("runs/finetune"))


def weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    return load_file(artifact.file)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Options that change the weights, and where their value is found in the manifest's config.
CHANGES: dict[str, tuple[list[str], str, Any]] = {
    "freeze-bn": (["--freeze-bn"], "train.freeze_bn", True),
    "pooling": (["--pooling", "catavgmax"], "head.pooling", "catavgmax"),
    "flatten": (["--pooling", "flatten"], "head.pooling", "flatten"),
    "hidden": (["--hidden", "16,8"], "head.hidden", [16, 8]),
    "dropout": (["--dropout", "0.5"], "head.dropout", 0.5),
    "init": (["--init", "xavier"], "head.init", "xavier"),
    "init-he": (["--init", "he"], "head.init", "he"),
    "no-augment": (["--no-augment"], "augment.enabled", False),
    "min-crop": (["--min-crop", "0.1"], "augment.min_crop", 0.1),
    "randaugment": (["--randaugment", "20"], "augment.randaugment", 20),
    "erasing": (["--erasing", "1"], "augment.erasing", 1.0),
    "sampling": (["--sampling", "balanced"], "augment.sampling", "balanced"),
    "class-weights": (["--class-weights", "balanced"], "train.class_weights", "balanced"),
    "bce": (["--label-loss", "bce"], "train.label_loss", "bce"),
    "mse": (["--label-loss", "mse"], "train.label_loss", "mse"),
    "focal": (["--label-loss", "focal"], "train.label_loss", "focal"),
    "label-smoothing": (["--label-smoothing", "0"], "train.label_smoothing", 0.0),
    "mixup": (["--mixup", "1"], "train.mixup", 1.0),
    "cutmix": (["--cutmix", "1"], "train.cutmix", 1.0),
    "ema": (["--ema", "0.9"], "train.ema", 0.9),
    "accumulate": (["--accumulate", "2"], "train.accumulate", 2),
    "optimizer": (["--optimizer", "lion"], "train.optimizer", "lion"),
    "schedule": (["--schedule", "constant"], "train.schedule", "constant"),
    "weight-decay": (["--weight-decay", "0.9"], "train.weight_decay", 0.9),
    "l1": (["--l1", "0.1"], "train.l1", 0.1),
    "layer-decay": (["--layer-decay", "0.5"], "train.layer_decay", 0.5),
    "lr": (["--lr", "0.01"], "train.lr", 0.01),
    "batch-size": (["--batch-size", "4"], "train.batch_size", 4),
    "seed": (["--seed", "7"], "seed", 7),
    "phases": (["--phases", PHASES], "train.phases.0.unfreeze", "head"),
}  # fmt: skip


@pytest.fixture(scope="module")
def baseline(folder: Path) -> dict[str, torch.Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return weights(train())


@pytest.mark.parametrize(("options", "place", "value"), CHANGES.values(), ids=CHANGES.keys())
def test_an_option_arrives_and_changes_the_weights(
    here: Path, baseline: dict[str, torch.Tensor], options: list[str], place: str, value: Any
) -> None:
    made = train(*options)
    found: Any = made.manifest.config
    for part in place.split("."):
        found = found[int(part) if part.isdigit() else part]
    assert found == value
    assert not same(weights(made), baseline)


def test_drop_path_changes_the_weights(here: Path) -> None:
    """In a network whose blocks have residuals to drop."""
    without, with_it = (weights(train("--arch", "test_resnet", "--drop-path", rate)) for rate in ("0", "0.9"))
    assert not same(without, with_it)


def test_what_changes_no_weight(here: Path, baseline: dict[str, torch.Tensor]) -> None:
    """Logs and the leak check leave the training as it is."""
    made = train("--log", "csv", "--log-dir", "logs", "--no-check-leaks")
    assert same(weights(made), baseline)
    assert made.manifest.details["data"]["leaks"] is None
    (metrics,) = Path("logs").rglob("metrics.csv")
    assert "blocks/loss" in metrics.read_text()


@pytest.mark.parametrize("what", ["head", "1", "from:conv_head"])
def test_only_what_is_unfrozen_learns(here: Path, what: str) -> None:
    phase = "[{unfreeze: '%s', epochs: %d, lr: 0.01}]"
    before, after = (weights(train("--phases", phase % (what, epochs))) for epochs in (0, 1))
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    expected = {
        "head": {"classifier"},
        "1": {"blocks", "conv_head", "bn2", "classifier"},
        "from:conv_head": {"conv_head", "bn2", "classifier"},
    }
    assert changed == expected[what]


def test_phases_on_the_command_line_and_in_a_recipe_are_the_same(here: Path) -> None:
    typed = train("--phases", PHASES)
    assert [row["phase"] for row in typed.manifest.history] == ["head", "head", "blocks"]
    recipe = Path("staged.yaml")
    recipe.write_text(
        "data: photos\n"
        "steps:\n"
        "  finetune:\n"
        "    {arch: test_efficientnet, weights: scratch, size: 32, train: {precision: fp32, batch_size: 8,\n"
        f"     epochs: 1, warmup: 0, phases: {PHASES}}}}}\n"
    )
    done = optkit("run", str(recipe), "--dry-run")
    assert done.code == 0, done.err
    assert typed.key in done.out + done.err


def test_the_learning_rate_finder_is_recorded(here: Path, baseline: dict[str, torch.Tensor]) -> None:
    made = train("--find-lr")
    finder = made.manifest.details["lr_finder"]
    assert finder["suggestion"] in finder["lr"]
    assert len(finder["lr"]) == len(finder["loss"])
    assert not same(weights(made), baseline)


def test_patience_ends_the_training(here: Path) -> None:
    phases = "[{unfreeze: head, epochs: 40, lr: 1.0e-9}]"
    assert len(train("--phases", phases, "--patience", "2").manifest.history) == 3


def test_best_and_last_lie_side_by_side(here: Path) -> None:
    """With noise for images some epoch is better than the last one."""
    options = ("--epochs", "6", "--lr", "0.03", "--schedule", "constant", "--label-smoothing", "0")
    last, best = (train(*options, "--keep", keep) for keep in ("last", "best"))
    scores = [row["val_top1"] for row in best.manifest.history]
    assert best.manifest.metrics["top1"] == max(scores)
    for made, other in ((last, "best.safetensors"), (best, "last.safetensors")):
        assert made.manifest.details["keep"] == made.manifest.config["train"]["keep"]
        if max(scores) > scores[-1]:
            assert other in made.manifest.files


def test_a_head_learns_from_several_views(here: Path) -> None:
    phases = "[{unfreeze: head, epochs: 3, lr: 0.01}]"
    one, two = (weights(train("--phases", phases, "--head-views", views)) for views in ("1", "3"))
    assert not same(one, two)


def test_a_network_is_compiled_for_training(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is handed to torch.compile; what that makes of one runs in `tests/contracts/test_runtimes.py`."""
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    made = train("--compile", "--head-epochs", "0")
    assert made.manifest.config["train"]["compile"] is True
    assert compiled


def test_help_is_in_panels(here: Path) -> None:
    text = optkit("finetune", "--help").out
    panels = (
        "New head", "Data", "Augmentation", "Optimiser and schedule", "Loss and regularisation", "Engine",
        "Training", "Output",
    )  # fmt: skip
    for panel in panels:
        assert f"─ {panel} ─" in text, panel


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["--phases", "[{unfreeze: head"], ["not a YAML list of phases"]),
        (["--phases", "{unfreeze: head, epochs: 1}"], ["not a YAML list of phases"]),
        (["--phases", "[{unfreeze: heads, epochs: 1}]"], ["train.phases.0.unfreeze", "from:MODULE"]),
        (["--unfreeze", "from:block"], ["no module 'block'", "Did you mean 'blocks'?"]),
        (["--unfreeze", "99"], ["99 is more than"]),
        (["--optimizer", "adm"], ["'adm'", "Did you mean 'adam'?"]),
        (["--schedule", "cosin"], ["error: Invalid value for '--schedule': 'cosin' is not one of"]),
        (["--lr", "inf"], ["train.lr"]),
        (["--lr", "1e38"], ["train.lr"]),
        (["--hidden", "a"], ["head.hidden"]),
        (["--ema", "1"], ["train.ema"]),
    ],
)
def test_values_that_cannot_be(here: Path, options: list[str], texts: list[str]) -> None:
    done = optkit(*BASE, *options)
    assert done.code == 2
    assert "Traceback" not in done.err
    for text in texts:
        assert text in done.err
