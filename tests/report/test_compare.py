"""Intervals against published and hand-computed figures, the Pareto front, and what is compared with what."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest

from optkit.core.types import Format
from optkit.measure.statistics import paired_difference
from optkit.report import text
from optkit.report.collect import collect
from optkit.report.compare import paired_interval, pareto_front, unpaired_interval
from optkit.report.deltas import accuracy_cells, latency_cell
from optkit.report.headline import headline, headline_row
from optkit.report.plots import pareto_plots

from .run_folder import RunFolder, answers, bench_row, latency


def test_unpaired_interval_of_a_known_example() -> None:
    # 56 of 70 against 48 of 80: shares 57/72 and 49/82 after adding one success and one failure to each.
    low, high = unpaired_interval(56 / 70, 70, 48 / 80, 80)
    centre = 57 / 72 - 49 / 82
    error = sqrt(57 / 72 * 15 / 72 / 72 + 49 / 82 * 33 / 82 / 82)
    assert (low, high) == pytest.approx((centre - 1.96 * error, centre + 1.96 * error), abs=1e-4)


def test_two_perfect_scores_still_have_a_width() -> None:
    low, high = unpaired_interval(1.0, 100, 1.0, 100)
    assert low < -0.01
    assert high > 0.01
    assert unpaired_interval(1.0, 10_000, 1.0, 10_000)[1] < high / 50


def test_paired_interval_of_a_known_example() -> None:
    # Approval ratings (Agresti, Categorical Data Analysis, 10.1.1): 1600 people, 150 against 86.
    assert paired_interval(150, 86, 1600) == pytest.approx((-0.0587, -0.0212), abs=5e-4)


def test_paired_interval_is_the_one_that_bench_prints() -> None:
    first = [index >= 6 for index in range(360)]
    second = [index < 350 for index in range(360)]
    low, high = paired_difference(first, second).interval  # of a drop: the other sign
    assert paired_interval(10, 6, 360) == pytest.approx((-high, -low), abs=1e-6)


def test_pairing_narrows_the_interval() -> None:
    paired = paired_interval(20, 14, 1000)
    unpaired = unpaired_interval(0.944, 1000, 0.950, 1000)
    assert paired[1] - paired[0] < 0.7 * (unpaired[1] - unpaired[0])


def test_pareto_front() -> None:
    points = [(5.0, 0.9), (1.0, 0.8), (3.0, 0.8), (2.0, 0.85), (9.0, 0.9), (2.0, 0.85)]
    assert pareto_front(points) == [1, 3, 5, 0]
    assert pareto_front([]) == []


def test_latency_is_compared_in_the_same_runtime_where_there_is_one(empty_run: RunFolder) -> None:
    dense = empty_run.add("dense", "export", Format.ONNX, size=10)
    small = empty_run.add("small", "quantize", Format.ONNX, size=5, inputs={"model": [dense]})
    rows = [
        bench_row("dense", dense, runtime="openvino", latency_ms=latency(2.0)),
        bench_row("dense", dense, runtime="onnxruntime", latency_ms=latency(8.0)),
        bench_row("small", small, runtime="onnxruntime", latency_ms=latency(4.0)),
        bench_row("small", small, runtime="pytorch", latency_ms=latency(4.0)),
        bench_row("small", small, runtime="onnxruntime", batch=8, latency_ms=latency(16.0)),
    ]
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [dense, small]}, details={"rows": rows})
    found = collect(empty_run.path).rows
    same, across, other_batch = (row.against_baseline for row in found[2:])
    assert same is not None
    assert (same.reference_runtime, same.speedup) == ("onnxruntime", 2.0)
    assert across is not None
    assert (across.runtime, across.reference_runtime, across.speedup) == ("pytorch", "openvino", 0.5)
    assert other_batch is None
    assert found[2].against_source == same
    assert found[3].against_source is None  # its source never ran in this runtime


def test_the_baseline_in_another_runtime_is_compared_with_its_first_row(empty_run: RunFolder) -> None:
    key = empty_run.add("m", "export", Format.ONNX, size=10)
    rows = [
        bench_row("m", key, runtime=runtime, latency_ms=latency(p50))
        for runtime, p50 in (("onnxruntime", 4.0), ("openvino", 2.0))
    ]
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": rows})
    first, second = (row.against_baseline for row in collect(empty_run.path).rows)
    assert first is None
    assert second is not None
    assert (second.runtime, second.reference_runtime, second.speedup) == ("openvino", "onnxruntime", 2.0)


def test_answers_of_one_bench_step_are_paired(run: RunFolder) -> None:
    int8 = next(row for row in collect(run.path).rows if row.name == "int8")
    assert int8.against_baseline is not None
    assert int8.against_baseline.paired
    assert int8.against_baseline.top1_interval == paired_interval(6, 2, 360)
    assert int8.against_source is not None
    assert int8.against_source.top1_interval == paired_interval(1, 0, 360)


def test_rows_of_different_bench_steps_are_not_paired(run: RunFolder) -> None:
    key = run.add("other", "export", Format.ONNX, size=1)
    row = bench_row("other", key, latency_ms=latency(1.0), top1=0.9)
    right = [answers(key, "onnxruntime", range(36))]
    run.add(
        "second",
        "bench",
        Format.RESULT,
        inputs={"models": [key]},
        details={"rows": [row]},
        measurements=right,
    )
    found = next(row for row in collect(run.path, baseline="teacher").rows if row.name == "other")
    assert found.against_baseline is not None
    assert not found.against_baseline.paired
    assert found.against_baseline.top1_interval == unpaired_interval(0.9, 360, 0.9833, 360)


@pytest.mark.parametrize("part", ["data", "cpu", "packages"])
def test_bench_steps_of_other_conditions_are_told_apart(run: RunFolder, part: str) -> None:
    key = run.add("other", "export", Format.ONNX, size=1)
    row = bench_row("other", key, latency_ms=latency(1.0), top1=0.99)
    run.add("second", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": [row]})

    def change(manifest: dict[str, Any]) -> None:
        if part == "data":
            manifest["config"]["data"] = {"path": "other photos"}
        elif part == "cpu":
            manifest["machine"]["cpu"] = "another"
        else:
            manifest["packages"]["torch"] = "0"

    run.edit("second", change)
    report = collect(run.path, baseline="onnx")
    found = next(row for row in report.rows if row.name == "other")
    delta = found.against_baseline
    assert delta is not None
    assert delta.other_images == (part == "data")
    assert (delta.top1_difference is None) == (part == "data")
    assert delta.not_comparable == {"data": "", "cpu": "another machine", "packages": "other packages"}[part]
    expected = delta.not_comparable and f"latencies not comparable ({delta.not_comparable})"
    assert text.speed_change(delta) == (expected or "3.42× the speed")
    assert text.runtimes(delta) == (
        "in onnxruntime" if expected else "in onnxruntime, not timed side by side"
    )
    cells = [latency_cell(found, delta), *accuracy_cells(found, delta)]
    assert {cell.tone for cell in cells} <= {"", "gain"}
    assert cells[0].text == ("not comparable" if expected else "3.42× the speed")
    assert (cells[1].note == "other images") == (part == "data")
    only = f"other (FP32 ONNX): {expected or '3.42× the speed'}"
    assert headline(report)[0].startswith(only)
    assert found.on_front
    assert next(row for row in report.rows if row.name == "int8").on_front  # slower and worse, but elsewhere


def test_front_is_marked_per_batch(run: RunFolder) -> None:
    front = {row.name for row in collect(run.path).rows if row.on_front}
    assert front == {"teacher", "student", "onnx", "int8"}  # pruned: as good as onnx, and slower


def test_rows_that_compute_nothing_are_compared_with_nothing(empty_run: RunFolder) -> None:
    """Not even when they claim to be the fastest and the best."""
    dense = empty_run.add("dense", "export", Format.ONNX, size=10)
    small = empty_run.add("small", "quantize", Format.ONNX, size=5, inputs={"model": [dense]})
    null = {"runtime": "null", "computes": False, "latency_ms": latency(0.001), "top1": 1.0}
    rows = [
        bench_row("nothing", dense, **null),
        bench_row("dense", dense, **null),
        bench_row("dense", dense, latency_ms=latency(8.0), top1=0.9),
        bench_row("small", small, **null),
        bench_row("small", small, latency_ms=latency(4.0), top1=0.9),
    ]
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [dense, small]}, details={"rows": rows})
    report = collect(empty_run.path)
    assert report.baseline == "dense"
    real = [row for row in report.rows if row.computes]
    assert [row.on_front for row in report.rows] == [False, False, False, False, True]
    assert all(row.against_baseline is row.against_source is None for row in report.rows if not row.computes)
    assert real[1].against_baseline is not None
    assert real[1].against_baseline.reference_runtime == "onnxruntime"
    assert real[1].against_source == real[1].against_baseline
    assert headline_row(report) == real[1]
    (plot,) = pareto_plots(report.rows)
    assert "null" not in plot.alt
