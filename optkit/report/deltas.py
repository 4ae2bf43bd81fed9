"""Every model against the baseline, and the percentiles of every latency, as tables."""

from __future__ import annotations

from optkit.report import text
from optkit.report.schema import Delta, Report, Row
from optkit.report.tables import Cell, Column, Table, without_empty_columns

PERCENTILES = ("p50", "p90", "p95", "p99", "p99.9")
BASELINE = "baseline"
COLUMNS = (
    Column("Model", is_number=False),
    Column("Latency"),
    Column("Size"),
    Column("MACs"),
    Column("Top-1, points"),
    Column("Flips"),
    Column("Agreement"),
    Column("ECE"),
    Column("Peak memory"),
    Column("Energy per image"),
    Column("Offline"),
    Column("Server"),
    Column("Against its source", is_number=False),
)


def deltas_table(report: Report) -> Table:
    """Every benched row against the baseline, whose own rows hold absolute figures."""
    rows = [row for row in report.rows if row.bench and row.computes]
    table = Table(
        f"Every model against {report.baseline}, at the same batch size",
        COLUMNS,
        tuple(_delta_cells(row, report.baseline) for row in rows),
    )
    return without_empty_columns(table)


def comparison_confidence(report: Report) -> str:
    """That of the intervals which say faster or slower: `99 %`."""
    found = {one.confidence for bench in report.benches for one in bench.comparisons if one.confidence}
    return ", ".join(f"{100 * confidence:g} %" for confidence in sorted(found))


def _delta_cells(row: Row, baseline: str | None) -> tuple[Cell, ...]:
    delta = row.against_baseline
    marks = (BASELINE,) if row.name == baseline else ()
    return (
        model_cell(row, marks),
        latency_cell(row, delta, row.name == baseline),
        size_cell(row, delta),
        macs_cell(row, delta),
        *accuracy_cells(row, delta, row.name == baseline),
        agreement_cell(row, baseline),
        ece_cell(row),
        memory_cell(row),
        energy_cell(row),
        offline_cell(row),
        server_cell(row),
        source_cell(row),
    )


def model_cell(row: Row, marks: tuple[str, ...] = ()) -> Cell:
    """What was measured, and how."""
    how = f"{row.precision.upper()} in {row.runtime}\nbatch {row.batch}" if row.bench else "not benched"
    return Cell(row.name, how, marks=marks)


def latency_cell(row: Row, delta: Delta | None, is_baseline: bool = False) -> Cell:
    """How much faster, with the interval of the ratio of the latencies; without a reference, p50."""
    if row.p50 is None:
        return Cell(reason=row.reason("latency_ms"))
    p50 = f"p50 {text.figure(row.p50)} ms"
    if not delta or not delta.speedup:
        return Cell(p50, order=1.0 if is_baseline else "")
    if delta.not_comparable:
        return Cell("not comparable", f"{delta.not_comparable}\n{p50}", order="")
    notes = [f"latency × {1 / delta.speedup:.3g}"]
    if delta.latency_interval:
        notes.append(f"({' – '.join(map(text.factor, delta.latency_interval))})")
    notes.append(p50)
    if delta.runtime != delta.reference_runtime:
        notes.append(f"against {delta.reference_runtime}")
    notes += [delta.no_verdict] if delta.no_verdict else []
    tone = {"faster": "gain", "slower": "loss"}.get(delta.verdict or "", "")
    words = "cannot tell" if delta.verdict == "cannot tell" else text.speed_change(delta)
    return Cell(words, "\n".join(notes), delta.speedup, tone)


def size_cell(row: Row, delta: Delta | None) -> Cell:
    """How much smaller, and the bytes."""
    if row.size_bytes is None:
        return Cell(reason=row.reason("size_bytes"))
    size = text.size(row.size_bytes)
    change = text.size_change(delta) if delta else ""
    return Cell(change, size, row.size_bytes) if change else Cell(size, order=row.size_bytes)


def macs_cell(row: Row, delta: Delta | None) -> Cell:
    """The count, and its ratio to the reference."""
    if row.macs is None:
        return Cell(reason=row.reason("macs"))
    macs = text.count(row.macs)
    if not delta or not delta.macs_ratio:
        return Cell(macs, order=row.macs)
    return Cell(f"× {delta.macs_ratio:.3g}", macs, row.macs)


def accuracy_cells(row: Row, delta: Delta | None, is_baseline: bool = False) -> tuple[Cell, Cell]:
    """The difference with its interval, and the images that changed with McNemar's p."""
    if row.top1 is None:
        return Cell(reason=row.reason("top1")), Cell(reason=row.reason("top1"))
    top1 = text.percent(row.top1)
    if delta and delta.other_images:
        return Cell(top1, "other images", order=""), Cell(reason="the two answered other images")
    if not delta or delta.top1_difference is None:
        order = 0.0 if is_baseline else ""
        return Cell(top1, order=order), Cell(reason="the baseline has no top-1" if delta else "")
    bounds = delta.top1_interval
    tone = "" if not bounds or bounds[0] <= 0 <= bounds[1] else "gain" if bounds[0] > 0 else "loss"
    note = f"{text.points_interval(bounds)}\n{top1}" if bounds else top1
    difference = Cell(text.points(delta.top1_difference), note, delta.top1_difference, tone)
    if delta.p_value is None or delta.lost is None or delta.won is None:
        return difference, Cell(reason="the two were not measured image by image on the same images")
    note = f"of {delta.n} images\n{text.p_value(delta.p_value)}"
    return difference, Cell(f"{delta.lost} lost, {delta.won} won", note, delta.won - delta.lost)


def _share_cell(row: Row, field: str) -> Cell:
    value = getattr(row, field)
    return Cell(reason=row.reason(field)) if value is None else Cell(text.percent(value), order=value)


def agreement_cell(row: Row, baseline: str | None) -> Cell:
    """The share of the same answers; the bench's first model need not be the baseline of the report."""
    cell, other = _share_cell(row, "agreement"), row.agreement_with
    apart = cell.text and other and other.name != baseline
    return Cell(cell.text, f"with {other.name}", cell.order) if apart and other else cell


def ece_cell(row: Row) -> Cell:
    """The calibration error with its interval."""
    cell = _share_cell(row, "ece")
    if not cell.text or not row.ece_interval:
        return cell
    return Cell(cell.text, text.interval(row.ece_interval), cell.order)


def memory_cell(row: Row) -> Cell:
    """The peak of the process, what of it the model added, and the GPU's part."""
    found = row.memory
    if not found or not found.peak_rss_bytes:
        return Cell(reason=row.reason("memory"))
    notes = []
    if found.rss_before_bytes:
        notes.append(f"model {text.size(max(0, found.peak_rss_bytes - found.rss_before_bytes))}")
    if found.gpu_bytes:
        notes.append(f"GPU {text.size(found.gpu_bytes)}")
    return Cell(text.size(found.peak_rss_bytes), "\n".join(notes), found.peak_rss_bytes)


def energy_cell(row: Row) -> Cell:
    if not row.energy:
        return Cell(reason=row.reason("energy"))
    joules = row.energy.joules_per_image
    amount = f"{text.figure(joules)} J" if joules >= 1 else f"{text.figure(1000 * joules)} mJ"
    return Cell(amount, row.energy.source.upper(), joules)


def offline_cell(row: Row) -> Cell:
    """Images per second when all are there at once."""
    found = row.offline
    if not found:
        return Cell(reason=row.reason("offline"))
    notes = [f"{text.figure(found.interval[0])} – {text.figure(found.interval[1])}"] if found.interval else []
    notes += [f"{found.streams} stream{'s' * (found.streams > 1)}"] if found.streams else []
    return Cell(f"{text.figure(found.images_per_s)} img/s", "\n".join(notes), found.images_per_s)


def server_cell(row: Row) -> Cell:
    """Requests per second within the bound."""
    found = row.server
    if not found:
        return Cell(reason=row.reason("server"))
    bound = f"{found.percentile} ≤ {text.figure(found.bound_ms)} ms" if found.bound_ms else ""
    return Cell(f"{text.figure(found.queries_per_s)} req/s", bound, found.queries_per_s)


def source_cell(row: Row) -> Cell:
    """Against the nearest model it was made from, unless that is the baseline."""
    source = row.against_source
    if not source or source == row.against_baseline:
        return Cell()
    changes = (text.size_change(source), text.accuracy_change(source))
    return Cell(
        text.speed_change(source) or "no latency to compare",
        f"against {source.reference} {text.runtimes(source)}; {'; '.join(filter(None, changes))}",
        source.speedup,
    )


def percentiles_table(report: Report) -> Table:
    """p50 to p99.9 of every timed row; a percentile that the sample is too small for says what it lacks."""
    rows = [row for row in report.rows if row.latency_ms or row.refused]
    columns = (COLUMNS[0], Column("Calls"), *(Column(f"{name} ms") for name in PERCENTILES))
    cells = tuple(
        (
            model_cell(row),
            Cell(str(row.samples) if row.samples else "", order=row.samples),
            *(percentile_cell(row, name) for name in PERCENTILES),
        )
        for row in rows
    )
    return without_empty_columns(Table("Latency of single calls, in ms per batch", columns, cells))


def percentile_cell(row: Row, name: str) -> Cell:
    """A percentile with its interval."""
    value = (row.latency_ms or {}).get(name)
    if value is None and name in row.refused:
        return Cell("refused", row.refused[name], order="")
    if value is None:
        return Cell(reason=row.not_measured.get(name, ""))
    bounds = row.latency_intervals.get(name)
    note = f"{text.figure(bounds[0])} – {text.figure(bounds[1])}" if bounds else ""
    if name in row.indicative:
        note = " ".join(filter(None, (note, "indicative")))
    return Cell(text.figure(value), note, value)
