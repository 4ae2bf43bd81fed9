"""What the tables of deltas and percentiles say."""

from __future__ import annotations

from optkit.report.base import NO_REASON
from optkit.report.collect import collect
from optkit.report.deltas import deltas_table, latency_cell, percentiles_table
from optkit.report.device_times import device_times_table
from optkit.report.render import to_html, to_markdown
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
    assert [order_of(found["fp32"][column]) for column in ("Latency", "Top-1, points")] == ["1.0", "0.0"]
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
    assert int8["Offline"].text == "1\u202f250 img/s"
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
    assert found["int8"]["Against its source"].text == "2.10× the speed"
    assert "against onnx in onnxruntime, not timed side by side" in found["int8"]["Against its source"].note
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


def _loads(run: RunFolder, loads: list[str], batch: int = 1) -> dict[str, Cell]:
    def change(manifest: dict) -> None:  # type: ignore[type-arg]
        manifest["config"]["loads"] = loads
        manifest["details"]["rows"][1] |= {"offline": None, "server": None, "batch": batch}
        manifest["details"]["rows"][2] |= {"offline": None, "not_measured": {"offline": "too <slow>"}}

    full_bench(run)
    run.edit("bench", change)
    return _table(deltas_table(collect(run.path)))["pruned"]


def test_loads_that_were_not_asked_for_say_so(empty_run: RunFolder) -> None:
    found = _loads(empty_run, [])
    assert found["Offline"].reason == "not asked for (--loads offline)"
    assert found["Server"].reason == "not asked for (--loads server)"
    rows = collect(empty_run.path).rows
    assert rows[2].not_measured["offline"] == "too <slow>"  # the bench knows better
    assert "offline" not in rows[0].not_measured


def test_agreement_names_its_reference_where_it_is_not_the_baseline(empty_run: RunFolder) -> None:
    full_bench(empty_run)

    def change(manifest: dict) -> None:  # type: ignore[type-arg]
        for row in manifest["details"]["rows"]:
            row["agreement_with"] = {"name": "fp32", "runtime": "onnxruntime"}

    empty_run.edit("bench", change)
    notes = [
        _table(deltas_table(collect(empty_run.path, baseline=baseline)))["int8"]["Agreement"].note
        for baseline in (None, "pruned")
    ]
    assert notes == ["", "with fp32"]


def test_the_server_load_belongs_to_batch_1(empty_run: RunFolder) -> None:
    found = _loads(empty_run, ["server", "offline"], batch=8)
    assert found["Server"].reason == "belongs to batch 1: its requests are single images"
    assert found["Offline"].reason == NO_REASON  # it was asked for


def test_latencies_of_the_same_bench_without_a_verdict_are_medians(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    found = _table(deltas_table(collect(empty_run.path, baseline="pruned")))
    assert (found["int8"]["Latency"].text, found["int8"]["Latency"].tone) == ("2.01× the speed", "")
    assert found["int8"]["Latency"].note.endswith("medians alone")


def test_what_a_gpu_measured_apart_has_a_table(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    assert not device_times_table(collect(empty_run.path).rows).rows
    assert "Copies and computation" not in to_html(collect(empty_run.path))
    ways = [{"cuda_graph": False}, {"cuda_graph": True}, {"like": "trtexec <10>"}]
    parts = [{**how, "h2d_ms": 0.1, "compute_ms": 1.5 + place} for place, how in enumerate(ways)]
    parts[0]["enqueue_ms"] = 0.25

    def change(manifest: dict) -> None:  # type: ignore[type-arg]
        manifest["details"]["rows"][2]["parts"] = parts

    empty_run.edit("bench", change)
    report = collect(empty_run.path)
    table = device_times_table(report.rows)
    assert [column.words for column in table.columns][1:] == [
        "Timed",
        "Copy in, ms",
        "Compute, ms",
        "Enqueue, ms",
    ]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["int8", "without a CUDA graph", "0.100", "1.50", "0.250"],
        ["int8", "with a CUDA graph", "0.100", "2.50", ""],
        ["int8", "like trtexec <10>", "0.100", "3.50", ""],
    ]
    assert "like trtexec <10>" in Page(to_html(report)).text
    assert r"like trtexec \<10\>" in to_markdown(report)
