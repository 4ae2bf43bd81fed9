"""What the tables of deltas and percentiles say."""

from __future__ import annotations

from optkit.report.collect import collect
from optkit.report.deltas import deltas_table, latency_cell, percentiles_table
from optkit.report.render import to_html
from optkit.report.schema import Delta
from optkit.report.tables import Cell, Column, Table, is_sortable, order_of, without_empty_columns

from .bench_folder import NO_COUNTER, full_bench
from .run_folder import RunFolder
from .test_render import Page


def _table(table: Table) -> dict[str, dict[str, Cell]]:
    """By the heading of the row, then of the column."""
    words = [column.words for column in table.columns]
    return {row[0].text: dict(zip(words, row, strict=True)) for row in table.rows}


def test_every_model_is_compared_as_the_bench_says(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    found = _table(deltas_table(collect(empty_run.path)))
    assert found["fp32"]["Latency"].text == "p50 4.21 ms"
    assert found["fp32"]["Model"].marks == ("baseline",)
    int8 = found["int8"]
    assert (int8["Latency"].text, int8["Latency"].tone) == ("3.1× faster", "gain")
    assert int8["Latency"].note == "latency × 0.323\n(0.313 – 0.333)\np50 1.36 ms"
    assert (int8["Size"].text, int8["Size"].note) == ("73 % smaller", "4.30 MB")
    assert int8["MACs"].text == "× 1"
    assert int8["Top-1, points"].text == "−0.3"
    assert int8["Flips"].text == "4 lost, 3 won"
    assert int8["Flips"].note == "of 360 images\np = 1"
    assert int8["ECE"].note == "1.4 – 3.3 %"
    assert int8["Peak memory"].text == "214 MB"
    assert int8["Offline"].text == "1\u202f250/s"
    assert int8["Server"].note == "p99 ≤ 15.0 ms"
    assert found["int8-ov"]["Latency"].text == "cannot tell"
    assert "against onnxruntime" in found["int8-ov"]["Latency"].note
    assert found["int8-ov"]["ECE"].reason == "no <probabilities>"


def test_a_column_without_a_figure_is_left_out_with_its_reason(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    table = deltas_table(collect(empty_run.path))
    assert "Energy per image" not in [column.words for column in table.columns]
    assert table.gaps == (("Energy per image", NO_COUNTER),)


def test_energy_is_shown_where_it_was_read(empty_run: RunFolder) -> None:
    full_bench(empty_run)

    def charge(manifest: dict) -> None:  # type: ignore[type-arg]
        manifest["details"]["rows"][2]["energy"] = {"joules_per_image": 0.0123, "source": "rapl"}

    empty_run.edit("bench", charge)
    found = _table(deltas_table(collect(empty_run.path)))
    assert (found["int8"]["Energy per image"].text, found["int8"]["Energy per image"].note) == (
        "12.3 mJ",
        "RAPL",
    )
    assert found["fp32"]["Energy per image"].reason == NO_COUNTER


def test_a_model_is_also_compared_with_its_source(run: RunFolder) -> None:
    found = _table(deltas_table(collect(run.path)))
    assert found["int8"]["Against its source"].text == "2.1× faster"
    assert "against onnx in onnxruntime" in found["int8"]["Against its source"].note
    assert found["student"]["Against its source"].text == ""  # its source is the baseline


def test_refused_percentiles_say_what_they_lack(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    table = percentiles_table(collect(empty_run.path))
    found = _table(table)["pruned"]
    assert (found["p50 ms"].text, found["p50 ms"].note) == ("2.73", "2.65 – 2.84")
    assert (found["p99 ms"].text, found["p99 ms"].note) == ("refused", "needs 662 calls, has 310")
    assert order_of(found["p99 ms"]) == ""


def test_percentiles_of_older_manifests(run: RunFolder) -> None:
    found = _table(percentiles_table(collect(run.path)))
    assert found["int8"]["p99 ms"].note == "indicative"
    assert "p95 ms" not in found["int8"]
    assert "engine" not in found


def test_slower_is_a_loss(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    row = collect(empty_run.path).rows[1]
    known = {"reference_format": "onnx", "reference_precision": "fp32", "reference_runtime": row.runtime}
    delta = Delta(reference="x", runtime=row.runtime, speedup=1 / 1.07, verdict="slower", **known)
    cell = latency_cell(row, delta)
    assert (cell.text, cell.tone) == ("1.07× slower", "loss")


def test_tables_of_two_rows_are_not_sorted() -> None:
    rows = ((Cell("a"), Cell(reason="why")), (Cell("b"), Cell(reason="why")), (Cell("c"), Cell()))
    table = Table("", (Column("x"), Column("y")), rows)
    assert is_sortable(table)
    assert not is_sortable(Table("", table.columns, rows[:2]))
    assert not is_sortable(Table("", table.columns, rows, is_ordered=True))
    assert without_empty_columns(table).gaps == (("y", "why"),)
    assert order_of(Cell("a", order=0)) == "0"


def test_a_row_of_too_few_calls_is_shown_as_refused(empty_run: RunFolder) -> None:
    full_bench(empty_run)

    def refuse(manifest: dict) -> None:  # type: ignore[type-arg]
        row = manifest["details"]["rows"][1]
        row |= {"latency_ms": {}, "latency_intervals": {}, "refused": {"p50": "needs 11 calls, has 6"}}

    empty_run.edit("bench", refuse)
    report = collect(empty_run.path)
    assert _table(percentiles_table(report))["pruned"]["p50 ms"].note == "needs 11 calls, has 6"
    assert _table(deltas_table(report))["pruned"]["Latency"].reason == "needs 11 calls, has 6"
    assert "refusedneeds 11 calls, has 6" in Page(to_html(report)).text


def test_what_nobody_asked_for_is_not_called_a_gap(run: RunFolder) -> None:
    assert deltas_table(collect(run.path)).gaps == ()
