"""Model files named on the command line: inside an artifact they are that artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from optkit import pipeline
from optkit.core.progress import SilentReporter
from optkit.core.store import Store
from optkit.core.types import MANIFEST, Format, Manifest, Precision
from optkit.recipe import Recipe, Step


@pytest.fixture
def artifact(tmp_path: Path, make_onnx: Callable[..., onnx.ModelProto]) -> Path:
    """An engine's artifact (of two files) that really is ONNX, which is enough for planning."""
    store = Store(tmp_path / "made")
    with store.workdir("k") as workdir:
        make_onnx(workdir / "model.onnx")
        (workdir / "extra.onnx").write_bytes((workdir / "model.onnx").read_bytes())
        manifest = Manifest(stage="quantize", key="k", format=Format.ONNX, precision=Precision.INT8)
        return store.commit(workdir, manifest).path


def _plan(tmp_path: Path, file: Path) -> pipeline.Plan:
    recipe = Recipe(name="r", steps={"export": Step(stage="export", options={"model": str(file)})})
    return pipeline.plan(recipe, Store(tmp_path / "store"))


def test_the_model_file_of_an_artifact_is_the_artifact(artifact: Path, tmp_path: Path) -> None:
    plan = _plan(tmp_path, artifact / "model.onnx")
    (given,) = plan.given.values()
    assert given.path == artifact
    assert given.precision == Precision.INT8
    assert list(plan.steps) == ["export"]
    assert plan.steps["export"].key == _plan(tmp_path, artifact).steps["export"].key


def test_another_file_of_an_artifact_is_loaded(artifact: Path, tmp_path: Path) -> None:
    plan = _plan(tmp_path, artifact / "extra.onnx")
    assert plan.given == {}
    assert [step.stage for step in plan.steps.values()] == ["load", "export"]


def test_a_manifest_of_another_program_does_not_matter(artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / MANIFEST).write_text('{"name": "a web app"}')
    (folder / "model.onnx").write_bytes((artifact / "model.onnx").read_bytes())
    plan = _plan(tmp_path, folder / "model.onnx")
    assert plan.given == {}
    assert "load" in {step.stage for step in plan.steps.values()}


def test_a_loaded_file_becomes_an_artifact(artifact: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        name="r",
        load={"size": 32, "class_names": list("abcde")},
        steps={"load": Step(stage="load", options={"path": str(artifact / "extra.onnx"), "size": 32})},
    )
    plan = pipeline.plan(recipe, Store(tmp_path / "store"))
    (made,) = pipeline.run(plan, SilentReporter()).values()
    assert made.format == Format.ONNX
    assert made.manifest.warnings
    assert made.file.is_file()
