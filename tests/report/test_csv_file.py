"""CSV: one header, figures in full, and no formula from outside."""

from __future__ import annotations

import csv
import io

import pytest

from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.csv_file import to_csv

from .bench_folder import full_bench
from .run_folder import RunFolder, bench_row, latency


def _read(run: RunFolder) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in csv.DictReader(io.StringIO(to_csv(collect(run.path).rows)))}


def test_rows_and_deltas_stand_in_one_table(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    found = _read(empty_run)
    assert list(found) == ["fp32", "pruned", "int8", "int8-ov"]
    int8 = found["int8"]
    assert float(int8["p50_ms"]) == 1.36
    assert float(int8["p90_ms_high"]) == pytest.approx(1.2 * 1.36 * 1.04)
    assert (int8["p99_ms"], int8["joules_per_image"]) == ("", "")
    assert "p99: needs 662 calls, has 310" in int8["not_measured"]
    assert (int8["reference"], int8["verdict"], int8["lost"], int8["won"]) == ("fp32", "faster", "4", "3")
    assert float(int8["speedup"]) == pytest.approx(4.21 / 1.36)
    assert float(int8["top1_difference"]) == pytest.approx(-1 / 360)
    assert (
        float(int8["top1_difference_low"])
        < float(int8["top1_difference"])
        < float(int8["top1_difference_high"])
    )
    assert found["fp32"]["reference"] == ""
    assert found["fp32"]["is_partial"] == "False"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_texts_cannot_be_formulas(empty_run: RunFolder, start: str) -> None:
    key = empty_run.add("m", "export", Format.ONNX, size=1)
    name = f'{start}HYPERLINK("http://evil")'
    rows = [bench_row(name, key, latency_ms=latency(1.0), not_measured={"energy": "=1+1"})]
    empty_run.add("bench", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": rows})
    (found,) = _read(empty_run).values()
    assert found["name"].startswith("'")
    assert float(found["p50_ms"]) == 1.0


def test_negative_numbers_stay_numbers(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    assert _read(empty_run)["int8"]["top1_difference"].startswith("-0.0027")


def test_no_rows_leave_a_header() -> None:
    assert to_csv([]) == "name\n"
