"""`optkit report` on one run, on the result of a single command, and on several runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.report.bench_folder import full_bench
from tests.report.run_folder import RunFolder, edit

from .support import optkit


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of the same models."""
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run = RunFolder(tmp_path / name)
        full_bench(run)
        found.append(run.path)
    return found[0], found[1]


def test_one_run_is_written_beside_its_steps(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = optkit("report", str(runs[0]))
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("int8 (INT8 ONNX): 3.1× faster than fp32")
    written = [runs[0] / f"report.{ending}" for ending in ("html", "md", "csv", "json")]
    assert done.out.splitlines()[1:] == [str(path) for path in written]
    assert all(path.is_file() for path in written)
    assert optkit("report", str(runs[0]), "--out", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out" / "report.csv").is_file()


def test_the_baseline_can_be_chosen(runs: tuple[Path, Path]) -> None:
    done = optkit("report", str(runs[0]), "--baseline", "pruned", "--json")
    assert done.json["baseline"] == "pruned"
    assert done.json["rows"][2]["against_baseline"]["reference"] == "pruned"


def test_the_result_of_a_single_command_is_a_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = optkit("report", str(runs[0] / "bench"), "--out", str(tmp_path / "out"))
    assert done.code == 0, done.err
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 22  # the thumbnails were found


def test_several_runs_are_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = optkit("report", *map(str, runs))
    assert done.code == 0, done.err
    assert done.out.startswith("b against a: 4 results compared.")
    assert (runs[0] / "comparison.html").is_file()
    assert not (runs[0] / "report.html").exists()
    there = optkit("report", *map(str, runs), "--out", str(tmp_path / "out"), "--json")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == there.json
    assert [run["name"] for run in there.json["runs"]] == ["a", "b"]


def test_a_baseline_is_refused_for_several_runs(runs: tuple[Path, Path]) -> None:
    done = optkit("report", *map(str, runs), "--baseline", "fp32")
    assert done.code == 2
    assert "single run" in done.err
    assert optkit("report", str(runs[0]), str(runs[0])).code == 2
    assert optkit("report", str(runs[0]), "nowhere").code == 4


def test_the_folder_must_be_one(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = optkit("report", str(runs[0]), "--out", str(tmp_path / "file"))
    assert done.code == 2, done.err
    below = optkit("report", str(runs[0]), "--out", str(tmp_path / "file" / "a" / "b"))
    assert below.code == 4
    assert "is a file" in below.err
    assert "Traceback" not in done.err + below.err
    assert (tmp_path / "file").read_text() == "mine"


def test_an_interrupted_bench_is_told_first_of_all(runs: tuple[Path, Path]) -> None:
    edit(runs[0] / "bench", lambda manifest: manifest["details"].update(interrupted=True))
    assert "Partial: bench was interrupted." in optkit("report", str(runs[0])).out.splitlines()[:2]
    assert "a is partial: its bench was interrupted." in optkit("report", *map(str, runs)).out.splitlines()
