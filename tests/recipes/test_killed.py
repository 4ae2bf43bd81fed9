"""A run that is killed with SIGKILL in each of its stages goes on where it stopped."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from optkit import pipeline
from optkit.core import discover
from optkit.core.store import Store, damage, read_artifact
from optkit.recipe import recipe_from_yaml
from tests import processes

RECIPE = """
name: killed
data: synthetic
steps:
  teacher: {stage: finetune, arch: test_efficientnet, weights: scratch, size: 32,
            train: {epochs: 1, workers: 0}}
  student: {stage: distill, teacher: teacher, arch: test_efficientnet, weights: scratch, size: 32,
            train: {epochs: 1, workers: 0}}
  pruned: {stage: prune, model: student, ratio: 0.2, round_to: 8, min_width: 8,
           gradient_images: 64, statistics_images: 64, train: {epochs: 1, workers: 0}}
  onnx: {stage: export, model: pruned}
  int8: {stage: quantize, model: onnx, calibration_images: 300, calibration_batch: 1}
  bench: {models: [onnx, int8], seconds: 1}
"""
STEPS = ["teacher", "student", "pruned", "onnx", "int8", "bench"]
DEADLINE_S = 120


def manifests(folder: Path) -> dict[str, bytes]:
    """The manifest of every artifact that can be seen, each of which must be whole."""
    found = {}
    for root in (folder / "runs" / ".store", folder / "runs" / "killed"):
        for path in root.glob("*/manifest.json"):
            artifact = read_artifact(path.parent)
            assert damage(artifact) is None
            found[str(path.parent.relative_to(folder))] = path.read_bytes()
    return found


@pytest.mark.slow
@pytest.mark.skipif(not discover.installed("onnxruntime"), reason="onnxruntime is not installed")
def test_a_run_killed_in_every_stage_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    store = Store(Path("runs/.store"))
    plan = pipeline.plan(recipe_from_yaml(Path("recipe.yaml"), []), store)
    keys = {name: plan.steps[name].key for name in STEPS}
    done: dict[str, bytes] = {}
    for index, name in enumerate(STEPS):
        running = processes.start(tmp_path, "run", "recipe.yaml")
        until = time.monotonic() + DEADLINE_S
        # The folder of this process appears when the stage begins; leftovers have other process ids.
        while not list(Path("runs/.store/work").glob(f"{keys[name]}.{running.pid}.*")):
            assert running.is_alive(), f"the run ended before {name}"
            assert time.monotonic() < until, f"{name} did not begin"
            time.sleep(0.005)
        running.kill()
        running.join()
        assert running.exitcode == -signal.SIGKILL
        seen = manifests(tmp_path)
        stored = {key for key in seen if ".store" in key}
        assert stored == {f"runs/.store/{keys[step]}" for step in STEPS[:index]}, f"killed in {name}"
        assert list(Path("runs/.store/work").glob(f"{keys[name]}.*")), "what the killed process left"
        assert seen.items() >= done.items(), "what is finished stays as it is"
        done = seen
    assert processes.finish(tmp_path, "run", "recipe.yaml").count("done before") == len(STEPS) - 1
    seen = manifests(tmp_path)
    assert seen.items() >= done.items()
    assert {f"runs/.store/{key}" for key in keys.values()} <= seen.keys()
    assert list(Path("runs/.store/work").iterdir()) == []
    assert Path("runs/killed/report.html").is_file()
