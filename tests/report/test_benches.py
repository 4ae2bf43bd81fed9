"""Bench manifests → curves and findings; broken and older ones."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from optkit.core.errors import InputError
from optkit.core.types import Format, Measurement
from optkit.report.benches import MAX_ROUNDS, ecdf
from optkit.report.collect import collect
from optkit.report.csv_file import to_csv
from optkit.report.headline import headline
from optkit.report.render import to_html, to_json, to_markdown
from optkit.report.schema import Report

from .bench_folder import CALLS, MODELS, ROUNDS, full_bench
from .run_folder import RunFolder, bench_row, latency
from .test_render import Page


def test_a_curve_holds_the_sample_and_its_tail() -> None:
    samples = [float(value) for value in range(10_000, 0, -1)]
    points = ecdf(samples)
    assert points[0] == (1.0, 0.0)
    assert points[-1] == (10_000.0, 1.0)
    assert (5_000.0, 0.5) in points
    assert (9_990.0, 0.999) in points
    assert len(points) < 70
    assert list(points) == sorted(points)


def test_a_small_sample_keeps_every_value() -> None:
    assert ecdf([3.0, 1.0, 2.0]) == ((1.0, 0.0), (1.0, 1 / 3), (2.0, 2 / 3), (3.0, 1.0))


def test_every_timed_row_has_its_curves(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    (bench,) = collect(empty_run.path).benches
    assert [found.name for found in bench.distributions] == list(MODELS)
    for found in bench.distributions:
        assert found.calls == CALLS
        assert len(found.rounds) == ROUNDS
        assert min(found.rounds) >= found.ecdf[0][0]


def _one_model(run: RunFolder, samples: list[float], **conditions: Any) -> None:
    key = run.add("m", "export", Format.ONNX, size=1)
    known = {"model": "m", "key": key, "runtime": "onnxruntime", "batch": 1, **conditions}
    timed = Measurement(name="latency_ms", unit="ms", samples=tuple(samples), conditions=known)
    rows = [bench_row("m", key, latency_ms=latency(2.0))]
    run.add(
        "bench",
        "bench",
        Format.RESULT,
        inputs={"models": [key]},
        details={"rows": rows},
        measurements=(timed,),
    )


def test_many_rounds_are_taken_together(empty_run: RunFolder) -> None:
    _one_model(empty_run, [1.0, 2.0, 9.0] * 500, rounds=[3] * 500)
    (found,) = collect(empty_run.path).benches[0].distributions
    assert found.rounds_each == 3
    assert len(found.rounds) == 167 <= MAX_ROUNDS
    assert set(found.rounds) == {2.0}


def test_rounds_that_do_not_fit_the_samples_are_not_drawn(empty_run: RunFolder) -> None:
    _one_model(empty_run, [1.0, 2.0, 9.0], rounds=[3, 1])
    (found,) = collect(empty_run.path).benches[0].distributions
    assert found.rounds == ()


def test_older_manifests_have_nothing_more_to_show(run: RunFolder) -> None:
    (bench,) = collect(run.path).benches
    assert not bench.comparisons
    assert not bench.distributions
    assert not bench.interrupted


def test_the_report_holds_it_once_and_survives_its_own_file(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    report = collect(empty_run.path)
    assert Report.model_validate_json(to_json(report)) == report
    assert not {"layers", "flips", "trace"} & report.steps[-1].manifest.details.keys()
    assert len(to_json(report)) < 200_000  # and no raw sample


def test_a_crash_is_told_once_and_an_interruption_marks_the_page(empty_run: RunFolder) -> None:
    full_bench(empty_run, interrupted=True)
    report = collect(empty_run.path)
    assert [warned.text[:27] for warned in report.warnings] == ["crashed: broken in openvino"]
    assert report.benches[0].interrupted
    assert "Partial. bench was interrupted" in Page(to_html(report)).text
    assert headline(report)[-1] == "Partial: bench was interrupted."
    headed = to_markdown(report).splitlines()[2]
    assert headed.startswith("int8 (INT8 ONNX): 3.1× faster")
    assert headed.endswith("**Partial**: bench was interrupted; these are the results so far.")
    assert {row["is_partial"] for row in csv.DictReader(io.StringIO(to_csv(report.rows)))} == {"True"}

    def tell(manifest: dict[str, Any]) -> None:
        failed = manifest["details"]["failed"][0]
        manifest["warnings"] = [f"{failed['name']} in {failed['runtime']} CRASHED: {failed['why']}"]

    empty_run.edit("bench", tell)
    assert len(collect(empty_run.path).warnings) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"comparisons": [{"name": "int8"}]},
        {"layers": 3},
        {"roofline": {"macs_per_s": {"fp32": "fast"}}},
        {"flips": [{"name": "x", "lost": 0.5}]},
        {"trace": {"rows": [["a"]]}},
    ],
)
def test_details_of_another_version_are_an_input_error(empty_run: RunFolder, change: dict[str, Any]) -> None:
    full_bench(empty_run, **change)
    with pytest.raises(InputError, match="cannot be read"):
        collect(empty_run.path)
