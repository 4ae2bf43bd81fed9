"""The comparison of runs → HTML, Markdown, CSV and JSON."""

from __future__ import annotations

from pathlib import Path

from optkit.report import text
from optkit.report.compare_runs import Difference, Pair, Runs
from optkit.report.csv_file import to_csv
from optkit.report.deltas import (
    accuracy_cells,
    ece_cell,
    macs_cell,
    memory_cell,
    model_cell,
    offline_cell,
    server_cell,
    size_cell,
)
from optkit.report.page import environment, page
from optkit.report.plots import pareto_plots
from optkit.report.render import write
from optkit.report.schema import Row
from optkit.report.tables import Cell, Column, Table, without_empty_columns

COLUMNS = (
    Column("Model", is_number=False),
    Column("Run", is_number=False),
    Column("Latency"),
    Column("Size"),
    Column("MACs"),
    Column("Top-1, points"),
    Column("Flips"),
    Column("ECE"),
    Column("Peak memory"),
    Column("Offline"),
    Column("Server"),
)


def render_runs(runs: Runs, folder: Path) -> dict[str, Path]:
    """Write `comparison.html`, `.md`, `.csv` and `.json` into `folder`; returns their paths by ending."""
    contents = {
        "html": to_html(runs),
        "md": to_markdown(runs),
        "csv": to_csv(runs.rows),
        "json": runs.model_dump_json(indent=2) + "\n",
    }
    return write(contents, folder, "comparison")


def headline(runs: Runs) -> list[str]:
    """What is compared, and the fastest model of the last run against its older self."""
    names = [run.name for run in runs.runs]
    count = len(runs.pairs)
    first = f"{', '.join(names[1:])} against {names[0]}: {count} {'result' if count == 1 else 'results'} compared."
    timed = [pair for pair in runs.pairs if pair.after.p50 is not None]
    if not runs.pairs:
        return [first, "No model was measured in the same runtime at the same batch size in both."]
    pair = min(timed or runs.pairs, key=lambda pair: (pair.run != names[-1], pair.after.p50 or 0.0))
    changes = (latency_words(pair), text.size_change(pair.delta), text.accuracy_change(pair.delta))
    found = [first, f"{pair.run}: {pair.after.name}: {', '.join(change for change in changes if change)}."]
    return found + [
        f"{run.name} is partial: its bench was interrupted." for run in runs.runs if run.is_partial
    ]


def latency_words(pair: Pair) -> str:
    """The ratio alone: two runs were not timed side by side, so there is no verdict."""
    words = text.speed_change(pair.delta)
    return f"{words} ({pair.delta.no_verdict})" if words and not pair.delta.not_comparable else words


def pairs_table(runs: Runs) -> Table:
    """A row for every model, runtime and batch size that two runs share."""
    table = Table(
        f"Every result against the same one of {runs.runs[0].name}",
        COLUMNS,
        tuple(_cells(pair) for pair in runs.pairs),
    )
    return without_empty_columns(table)


def _cells(pair: Pair) -> tuple[Cell, ...]:
    before, after, delta = pair.before, pair.after, pair.delta
    return (
        model_cell(after),
        Cell(pair.run, _bench_steps(pair)),
        _latency_cell(pair),
        size_cell(after, delta),
        macs_cell(after, delta),
        *accuracy_cells(after, delta),
        *(_both(cell(before), cell(after)) for cell in (ece_cell, memory_cell, offline_cell, server_cell)),
    )


def _bench_steps(pair: Pair) -> str:
    """Which bench steps are compared, where their names do not go without saying."""
    before, after = pair.before.bench, pair.after.bench
    if before == after:
        return "" if after in ("", "bench") else after
    return f"{before} → {after}"


def _latency_cell(pair: Pair) -> Cell:
    before, after, delta = pair.before.p50, pair.after.p50, pair.delta
    if before is None or after is None or not delta.speedup:
        return Cell(reason=_gap(pair.after, "latency_ms") or _gap(pair.before, "latency_ms"))
    notes = [f"p50 {text.figure(before)} → {text.figure(after)} ms"]
    if delta.latency_interval:
        notes.insert(0, f"({text.speedup_interval(delta)})")
    if delta.not_comparable == "another machine":
        return Cell("not comparable", f"another machine\n{notes[-1]}", order="")
    marks = (f"not comparable: {delta.not_comparable}",) if delta.not_comparable else ()
    ratio = text.speed_ratio(delta.speedup)
    return Cell(f"{ratio} the speed", "\n".join((*notes, delta.no_verdict)), delta.speedup, marks=marks)


def _gap(row: Row, field: str) -> str:
    return "" if getattr(row, field) is not None else row.reason(field)


def _both(before: Cell, after: Cell) -> Cell:
    """The later figure, with the earlier one below."""
    if not after.text:
        return after
    return Cell(after.text, f"before {before.text or 'not measured'}", after.order)


def differences_table(differences: tuple[Difference, ...], runs: Runs, words: str) -> Table:
    """A row for each fact in which the runs differ."""
    columns = (Column(words, is_number=False), *(Column(run.name, is_number=False) for run in runs.runs))
    rows = tuple(
        (Cell(found.name.replace("_", " ")), *(Cell(value) for value in found.values))
        for found in differences
    )
    return Table(f"{words} in which the runs differ", columns, rows, is_ordered=True)


def _values(runs: Runs) -> dict[str, object]:
    return {
        "runs": runs,
        "headline": headline(runs),
        "pairs": pairs_table(runs),
        "machines": differences_table(runs.machine_differences, runs, "Facts of the machine"),
        "packages": differences_table(runs.package_differences, runs, "Package versions"),
        "comparable": not any(pair.delta.not_comparable for pair in runs.pairs),
        "has_fronts": len({row.group for row in runs.rows if row.on_front}) > 1,
    }


def to_html(runs: Runs) -> str:
    """The whole page as one string."""
    of_rows = {f"{run.name}: {row.name}": run.name for run in runs.runs for row in run.rows}
    pareto = pareto_plots(runs.rows, runs=of_rows)
    title = " and ".join(run.name for run in runs.runs)
    return page("comparison.html", title, pareto, {**_values(runs), "pareto": pareto})


def to_markdown(runs: Runs) -> str:
    """Headline, differences and the table."""
    return environment(escape_html=False).get_template("comparison.md").render(**_values(runs))
