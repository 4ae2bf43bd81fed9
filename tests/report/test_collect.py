"""Run folders → reports: order, rows, warnings, and folders that are not what they should be."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from optkit.core.errors import InputError, UsageError
from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.lineage import lineage

from .run_folder import NO_GPU, RunFolder, bench_row, latency


def test_steps_come_in_the_order_of_their_lineage(run: RunFolder) -> None:
    report = collect(run.path)
    assert [step.name for step in report.steps] == [
        "teacher", "student", "pruned", "onnx", "int8", "engine", "bench",
    ]  # fmt: skip
    assert report.steps[-1].sources == ("teacher", "student", "pruned", "onnx", "int8", "engine")
    assert report.steps[3].sources == ("pruned",)


def test_an_input_from_elsewhere_stays_a_key(empty_run: RunFolder) -> None:
    empty_run.add("onnx", "export", Format.ONNX, size=10, inputs={"model": ["0123456789abcdef"]})
    assert collect(empty_run.path).steps[0].sources == ("0123456789abcdef",)


def test_rows_and_baseline(run: RunFolder) -> None:
    report = collect(run.path)
    assert [row.name for row in report.rows] == ["teacher", "student", "pruned", "onnx", "int8", "engine"]
    assert report.baseline == "teacher"
    teacher, student, *_, engine = report.rows
    assert teacher.against_baseline is None
    assert student.against_baseline is not None
    assert student.against_baseline.speedup == pytest.approx(41.3 / 22.8)
    assert engine.p50 is None
    assert engine.reason("latency_ms") == NO_GPU
    assert engine.against_baseline is not None
    assert engine.against_baseline.speedup is None
    assert collect(run.path, baseline="onnx").baseline == "onnx"
    given = {"onnx": "runs/example/onnx"}
    run.edit("bench", lambda manifest: manifest["details"].update(models=given))
    assert collect(run.path, baseline="runs/example/onnx").baseline == "onnx"
    with pytest.raises(UsageError) as error:
        collect(run.path, baseline="onxx")
    assert "onnx" in error.value.hint


def test_models_that_no_bench_covers_are_shown_as_such(empty_run: RunFolder) -> None:
    empty_run.add(
        "student", "distill", Format.TORCH, size=4_000, metrics={"top1": 0.97, "n": 50, "note": "x"}
    )
    report = collect(empty_run.path)
    assert report.baseline is None
    row = report.rows[0]
    assert (row.top1, row.n, row.size_bytes) == (0.97, 50, 4_000)
    assert row.not_measured["latency_ms"] == "not benched"
    assert "top1" not in row.not_measured


def test_calibration_images_are_a_step_and_no_model(empty_run: RunFolder) -> None:
    sample = empty_run.add("sample", "sample", Format.IMAGES, size=2)
    empty_run.add("int8", "quantize", Format.ONNX, size=5, inputs={"calibration": [sample]})
    report = collect(empty_run.path)
    assert [row.name for row in report.rows] == ["int8"]
    assert [step.name for step in report.steps] == ["sample", "int8"]
    assert "calibration images" in lineage(report.steps).nodes[0].detail


def test_missing_fields_of_a_row_are_tolerated(empty_run: RunFolder) -> None:
    key = empty_run.add("m", "export", Format.ONNX, size=1)
    rows = [
        {
            "name": "m",
            "key": key,
            "format": "onnx",
            "precision": "fp32",
            "runtime": "null",
            "batch": 1,
            "new": 1,
        },
        bench_row("m", key, batch=8, latency_ms={"p50": 1.0, "p90": 2.0, "p99": None}),
    ]
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": rows})
    bare, partial = collect(empty_run.path).rows
    assert bare.reason("top1") == "no reason was recorded"
    assert partial.latency_ms == {"p50": 1.0, "p90": 2.0}


def test_warnings_carry_their_step(run: RunFolder) -> None:
    (warning,) = collect(run.path).warnings
    assert warning.step == "teacher"
    assert warning.text.startswith("trained from scratch")


def test_bench_on_two_machines_is_a_warning(run: RunFolder) -> None:
    key = run.add("late", "export", Format.ONNX, size=1)
    row = bench_row("late", key, latency_ms=latency(1.0))
    run.add("bench2", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": [row]})
    assert len(collect(run.path).warnings) == 1

    def move(manifest: dict[str, Any]) -> None:
        manifest["machine"]["cpu"] = "another one"

    run.edit("bench2", move)
    report = collect(run.path)
    assert "different machines" in report.warnings[0].text
    assert [machine.steps for machine in report.machines][1] == ("bench2",)


def test_recipe_and_commands(run: RunFolder) -> None:
    report = collect(run.path)
    assert report.recipe is not None
    assert report.recipe.startswith("name: example")
    assert report.commands[-1] == f"optkit run {run.path / 'recipe.yaml'}"
    spaced = run.path.with_name("my $(run)")
    run.path.rename(spaced)
    assert collect(spaced).commands[-1] == f"optkit run {shlex.quote(str(spaced / 'recipe.yaml'))}"
    spaced.rename(run.path)
    run.edit("bench", lambda manifest: manifest["packages"].update({"x;rm -r": "1.0+cpu"}))
    pins = shlex.split(collect(run.path).commands[0])
    assert pins[:2] == ["pip", "install"]
    assert "x;rm -r==1.0" in pins
    (run.path / "recipe.yaml").unlink()
    assert collect(run.path).recipe is None
    assert not any("optkit run" in command for command in collect(run.path).commands)


def _unknown_field(manifest: dict[str, Any]) -> None:
    manifest["surprise"] = 1


def _row_without_name(manifest: dict[str, Any]) -> None:
    del manifest["details"]["rows"][0]["name"]


def _rows_that_are_a_number(manifest: dict[str, Any]) -> None:
    manifest["details"]["rows"] = 3


def _circle(manifest: dict[str, Any]) -> None:
    manifest["inputs"] = {"model": [manifest["key"]]}


@pytest.mark.parametrize("change", [_unknown_field, _row_without_name, _rows_that_are_a_number, _circle])
def test_a_broken_manifest_is_an_input_error(run: RunFolder, change: Any) -> None:
    run.edit("bench", change)
    with pytest.raises(InputError) as error:
        collect(run.path)
    assert error.value.hint


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        collect(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no artifacts"):
        collect(tmp_path)
    (tmp_path / ".half.written").mkdir()
    (tmp_path / ".half.written" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="holds no artifacts"):
        collect(tmp_path)
