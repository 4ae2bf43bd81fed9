"""A training in processes of its own: killed ten times, and shared by two."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from optkit.models.build import build
from tests import processes

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10
COMMON = [
    "finetune",
    "--data",
    "synthetic",
    "--arch",
    "test_efficientnet",
    "--weights",
    "scratch",
    "--size",
    "32",
]


def finish(folder: Path, *options: str) -> dict[str, torch.Tensor]:
    """Run to the end and return the weights."""
    processes.finish(folder, *COMMON, *options)
    return load_file(folder / "runs" / "finetune" / "model.safetensors")


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_the_weights_as_they_would_be(tmp_path: Path) -> None:
    options = ["--epochs", "8", "--batch-size", "4", "--checkpoint-seconds", "0.1", "--lr", "0.002"]
    expected = finish(tmp_path / "whole", *options)
    cut = tmp_path / "cut"
    moments = random.Random(0)
    positions = []
    for _ in range(KILLS):
        process = processes.start(cut, *COMMON, *options)
        before = checkpoint_time(cut)
        while checkpoint_time(cut) == before and process.is_alive():
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2))
        assert process.is_alive(), "the training must be longer than the moments of the kills"
        process.kill()
        process.join()
        positions.append(position(cut))
    assert len(set(positions)) > KILLS / 2, "the kills fall on different steps"
    assert any(step for _, step in positions), "inside an epoch"
    found = finish(cut, *options)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    manifests = [manifest(tmp_path / name / "runs/finetune") for name in ("whole", "cut")]
    assert manifests[0]["history"] == manifests[1]["history"]
    assert manifests[0]["metrics"] == manifests[1]["metrics"]
    assert not list((cut / "runs/.store/scratch").glob("*")), "nothing is left behind"


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def checkpoint(folder: Path) -> Path | None:
    return next((folder / "runs/.store/scratch").glob("*/state.pt"), None)


def checkpoint_time(folder: Path) -> int:
    path = checkpoint(folder)
    return path.stat().st_mtime_ns if path else 0


def position(folder: Path) -> tuple[int, int]:
    """Epoch and step at which the next run goes on."""
    path = checkpoint(folder)
    assert path is not None
    progress = torch.load(path, weights_only=True)["progress"]
    return progress["epoch"], progress["step"]


RECIPE = """
data: synthetic
steps:
  ft: {stage: finetune, arch: test_efficientnet, weights: scratch, size: 32,
       train: {batch_size: 16, optimizer: momentum, devices: DEVICES,
               phases: [{unfreeze: all, epochs: 1, lr: 0.01}, {unfreeze: 2, epochs: 1, lr: 0.01}]}}
  score: {stage: evaluate, model: ft}
"""
# A step of one process after one of two.
ALONE = "  alone: {stage: distill, teacher: ft, student: ft, train: {batch_size: 16, epochs: 1, lr: 0.001}}\n"


def launched(folder: Path) -> str:
    """What the recipe says where its training starts other processes."""
    script = folder / "start.py"  # a file: the others start it again
    script.write_text("from optkit.cli import main\n\nif __name__ == '__main__':\n    main()\n")
    command = [sys.executable, "start.py", "run", "r.yaml"]
    log, environment = folder / "log", {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as said:
        subprocess.run(
            command, cwd=folder, stdout=said, stderr=said, env=environment, timeout=300, check=False
        )
    return log.read_text()


def run_recipe(folder: Path, devices: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and score of the recipe."""
    folder.mkdir()
    recipe = RECIPE + ALONE if devices > 1 else RECIPE
    (folder / "r.yaml").write_text(recipe.replace("DEVICES", str(devices)))
    text = launched(folder) if devices > 1 else processes.finish(folder, "run", "r.yaml")
    run = folder / "runs" / "r"
    assert (run / "report.html").is_file(), text
    assert text.count("score: evaluate") == 1, "one process speaks"
    return load_file(run / "ft" / "model.safetensors"), manifest(run / "score")["metrics"]


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """With plain SGD: Adam divides by the size of gradients, and so turns rounding into steps."""
    (one, score), (two, other_score) = (run_recipe(tmp_path / str(n), n) for n in (1, 2))
    begin = {name: value for name, value in fresh_network().state_dict().items() if name in one}
    for name, value in one.items():
        if value.is_floating_point():
            moved = (value - begin[name]).abs().max()
            assert (value - two[name]).abs().max() <= 1e-3 + 0.02 * moved, name
    assert score["n"] == other_score["n"] == 80
    assert score["top1"] == pytest.approx(other_score["top1"], abs=0.03)
    histories = [manifest(tmp_path / n / "runs/r/ft")["history"] for n in ("1", "2")]
    assert histories[0][0]["loss"] == pytest.approx(histories[1][0]["loss"], rel=1e-3)
    assert histories[0][0]["val_loss"] == pytest.approx(histories[1][0]["val_loss"], rel=2e-2)


def fresh_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build("test_efficientnet", 4)
