"""Several runs on one page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from optkit.core.errors import UsageError
from optkit.core.types import Format
from optkit.report.compare import unpaired_interval
from optkit.report.compare_runs import Runs, compare_runs
from optkit.report.csv_file import to_csv
from optkit.report.plots import pareto_plots
from optkit.report.render_runs import headline, pairs_table, render_runs, to_html, to_markdown

from .bench_folder import full_bench, gate
from .run_folder import RunFolder
from .test_render import Page


@pytest.fixture
def before(tmp_path: Path) -> RunFolder:
    return _run(tmp_path / "before")


@pytest.fixture
def after(tmp_path: Path) -> RunFolder:
    """Every model 10 % faster, and int8 wrong on three more images."""
    run = _run(tmp_path / "after")

    def change(manifest: dict[str, Any]) -> None:
        for row in manifest["details"]["rows"]:
            row["latency_ms"]["p50"] *= 0.9
            row["latency_intervals"]["p50"] = [0.9 * bound for bound in row["latency_intervals"]["p50"]]
        manifest["details"]["rows"][2]["top1"] -= 3 / 360
        for found in manifest["measurements"]:
            if found["name"] == "top1" and found["conditions"]["model"] == "int8":
                found["samples"][100:103] = [0.0] * 3

    run.edit("bench", change)
    return run


def _run(folder: Path) -> RunFolder:
    folder.mkdir()
    run = RunFolder(folder)
    full_bench(run)
    return run


def _pair(runs: Runs, name: str) -> Any:
    return next(pair for pair in runs.pairs if pair.after.name == name)


def test_the_same_models_are_compared_image_by_image(before: RunFolder, after: RunFolder) -> None:
    runs = compare_runs([before.path, after.path])
    assert [run.name for run in runs.runs] == ["before", "after"]
    assert [pair.after.name for pair in runs.pairs] == ["fp32", "pruned", "int8", "int8-ov"]
    int8 = _pair(runs, "int8").delta
    assert int8.speedup == pytest.approx(1 / 0.9)
    assert int8.latency_interval == pytest.approx((0.9 * 0.97 / 1.04, 0.9 * 1.04 / 0.97))
    assert int8.verdict is None  # not timed side by side
    assert (int8.paired, int8.lost, int8.won, int8.n) == (True, 3, 0, 360)
    assert int8.not_comparable == ""
    assert headline(runs) == [
        "after against before: 4 results compared.",
        "after: int8: 1.11× the speed (not timed side by side), of the same size, accuracy −0.8 ± 1.6 points: "
        "no difference that 360 images can show.",
    ]
    latency = next(row for row in pairs_table(runs).rows if row[0].text == "int8")[2]
    assert latency.note == "(1.04 – 1.19×)\np50 1.36 → 1.22 ms\nnot timed side by side"


def test_accuracies_on_other_data_are_not_compared(before: RunFolder, after: RunFolder) -> None:
    after.edit("bench", lambda manifest: manifest["config"]["data"].update(path="other"))
    runs = compare_runs([before.path, after.path])
    delta = _pair(runs, "int8").delta
    assert delta.other_images
    assert delta.top1_difference is delta.top1_interval is None
    assert delta.speedup == pytest.approx(1 / 0.9)
    row = next(row for row in pairs_table(runs).rows if row[0].text == "int8")
    accuracy = next(cell for cell in row if cell.note == "other images")
    assert (accuracy.text, accuracy.tone) == ("95.6 %", "")
    assert headline(runs)[1].endswith("accuracy not compared (other images).")
    assert {row["other_images"] for row in csv.DictReader(io.StringIO(to_csv(runs.rows)))} == {"", "True"}
    assert {row.group for row in runs.rows} == {0, 1}


def test_other_images_of_the_same_data_are_not_paired(before: RunFolder, after: RunFolder) -> None:
    def change(manifest: dict[str, Any]) -> None:
        for found in manifest["measurements"]:
            if found["name"] == "top1":
                found["conditions"]["indices"][0] = 999

    after.edit("bench", change)
    pair = _pair(compare_runs([before.path, after.path]), "int8")
    assert not pair.delta.paired
    assert pair.delta.lost is None
    assert pair.delta.top1_interval == unpaired_interval(pair.after.top1, 360, pair.before.top1, 360)


def test_another_machine_forbids_to_compare_latencies(before: RunFolder, after: RunFolder) -> None:
    after.edit("bench", lambda manifest: manifest["machine"].update(cpu="<b>another</b>"))
    runs = compare_runs([before.path, after.path])
    assert [found.name for found in runs.machine_differences] == ["cpu"]
    assert runs.machine_differences[0].values[1] == "<b>another</b>"
    cells = [row[2] for row in pairs_table(runs).rows]
    assert {cell.text for cell in cells} == {"not comparable"}
    fronts = [[row.name for row in runs.rows if row.on_front and row.group == group] for group in (0, 1)]
    assert [{name.split(":")[0] for name in front} for front in fronts] == [{"before"}, {"after"}]
    (plot,) = pareto_plots(runs.rows, runs={row.name: row.name.split(":")[0] for row in runs.rows})
    names = [trace["name"] for trace in plot.figure["data"] if trace["name"].startswith("Pareto")]
    assert names == ["Pareto front of before", "Pareto front of after"]
    assert "latencies not comparable (another machine)" in headline(runs)[1]
    text = " ".join(Page(to_html(runs)).text.split())
    assert "Latencies are not comparable. The machines differ." in text
    assert "<b>another</b>" in text
    assert r"\<b\>another\</b\>" in to_markdown(runs)


def test_other_packages_are_told(before: RunFolder, after: RunFolder) -> None:
    after.edit("bench", lambda manifest: manifest["packages"].update(onnxruntime="0.1"))
    runs = compare_runs([before.path, after.path])
    (found,) = runs.package_differences
    assert (found.name, found.values[1]) == ("onnxruntime", "0.1")
    assert pairs_table(runs).rows[0][2].marks == ("not comparable: other packages",)
    assert "**Latencies are not comparable**: the packages differ." in to_markdown(runs)


def test_what_only_one_run_has_is_listed(before: RunFolder, after: RunFolder) -> None:
    after.edit("bench", lambda manifest: manifest["details"]["rows"][3].update(runtime="openvino"))
    runs = compare_runs([before.path, after.path])
    assert runs.unmatched == (
        "before: int8-ov in openvino:throughput, batch 1",
        "after: int8-ov in openvino, batch 1",
    )
    assert "after: int8-ov in openvino, batch 1" in Page(to_html(runs)).text


def _second_bench(run: RunFolder, name: str, p50: float, top1: float) -> None:
    """Another bench step of the same models, at other threads."""
    first = json.loads((run.path / "bench" / "manifest.json").read_text())
    rows = [{**row, "latency_ms": {"p50": p50}, "top1": top1} for row in first["details"]["rows"]]
    known = {"machine": first["machine"], "packages": first["packages"], "config": first["config"]}
    run.add(name, "bench", Format.RESULT, inputs=first["inputs"], details={"rows": rows}, **known)


def test_two_benches_of_a_run_are_kept_apart(before: RunFolder, after: RunFolder) -> None:
    for run, p50 in ((before, 8.0), (after, 4.0)):
        _second_bench(run, "one-thread", p50, 0.9)
    runs = compare_runs([before.path, after.path])
    assert len(runs.pairs) == 8
    found = {pair.after.bench: pair.delta.speedup for pair in runs.pairs if pair.after.name == "int8"}
    assert found == {"bench": pytest.approx(1 / 0.9), "one-thread": 2.0}
    deltas = {row.bench: row.against_baseline for row in runs.rows if row.name == "after: int8"}
    assert {bench: delta and delta.speedup for bench, delta in deltas.items()} == found
    assert {row[1].note for row in pairs_table(runs).rows} == {"", "one-thread"}
    assert not runs.unmatched


def test_bench_steps_of_other_names_are_compared_where_that_is_clear(
    before: RunFolder, after: RunFolder
) -> None:
    (after.path / "bench").rename(after.path / "bench-again")
    runs = compare_runs([before.path, after.path])
    assert len(runs.pairs) == 4
    assert pairs_table(runs).rows[0][1].note == "bench → bench-again"
    _second_bench(before, "one-thread", 8.0, 0.9)
    runs = compare_runs([before.path, after.path])
    assert not runs.pairs
    assert "before: int8 in onnxruntime, batch 1, by one-thread" in runs.unmatched
    assert "after: int8 in onnxruntime, batch 1" in runs.unmatched


def test_all_rows_stand_side_by_side(before: RunFolder, after: RunFolder, tmp_path: Path) -> None:
    gate(after, "pass")
    after.edit("bench", lambda manifest: manifest["details"].update(interrupted=True))
    third = _run(tmp_path / "third")
    runs = compare_runs([before.path, after.path, third.path])
    assert [row.name for row in runs.rows][3:5] == ["before: int8-ov", "after: fp32"]
    assert len(runs.pairs) == 8
    assert runs.rows[0].against_baseline is None
    assert runs.rows[4].against_baseline is not None
    assert runs.rows[4].against_baseline.reference == "before: fp32"
    paths = render_runs(runs, tmp_path / "out")
    assert {path.name for path in paths.values()} == {
        f"comparison.{end}" for end in ("html", "md", "csv", "json")
    }
    assert Runs.model_validate_json(paths["json"].read_bytes()) == runs
    assert len(list(csv.DictReader(paths["csv"].open()))) == 12
    page = Page(paths["html"].read_text())
    assert len(page.all("h1")) == 1
    assert "Gate of int8 in onnxruntime" in page.text
    assert [run.is_partial for run in runs.runs] == [False, True, False]
    assert page.text.count("Partial: its bench was interrupted.") == 1
    assert headline(runs)[-1] == "after is partial: its bench was interrupted."
    assert all(header.get("scope") for header in page.all("th"))
    assert [part["id"] for part in page.all("div") if part.get("role") == "img"] == ["pareto-1"]


def test_runs_without_anything_in_common(before: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = RunFolder(tmp_path / "other")
    other.add("x", "export", Format.ONNX, size=3)
    runs = compare_runs([before.path, other.path])
    assert headline(runs)[0] == "other against before: 0 results compared."
    assert "No model was measured" in Page(to_html(runs)).text
    assert "No model was measured" in to_markdown(runs)


def test_a_run_is_not_compared_with_itself(before: RunFolder) -> None:
    with pytest.raises(UsageError, match="itself"):
        compare_runs([before.path, before.path / ".." / "example"])
