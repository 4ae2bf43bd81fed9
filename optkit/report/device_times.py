"""Copies and computation apart, as the clock of a GPU measured them."""

from __future__ import annotations

from collections.abc import Sequence

from optkit.report import text
from optkit.report.bench_schema import DeviceTimes
from optkit.report.deltas import model_cell
from optkit.report.schema import Row
from optkit.report.tables import Cell, Column, Table, without_empty_columns

PARTS = {
    "h2d_ms": "Copy in, ms",
    "compute_ms": "Compute, ms",
    "d2h_ms": "Copy out, ms",
    "enqueue_ms": "Enqueue, ms",
}
COLUMNS = (
    Column("Model", is_number=False),
    Column("Timed", is_number=False),
    *(Column(words) for words in PARTS.values()),
)


def device_times_table(rows: Sequence[Row]) -> Table:
    """A row for every way in which a model was timed; none for models on a CPU."""
    cells = tuple(
        (model_cell(row), Cell(_how(parts)), *(_part_cell(parts, name) for name in PARTS))
        for row in rows
        for parts in row.parts
    )
    return without_empty_columns(Table("Medians by the GPU's own clock, in ms per batch", COLUMNS, cells))


def _how(parts: DeviceTimes) -> str:
    """`with a CUDA graph`, or like which tool."""
    if parts.like or parts.cuda_graph is None:
        return f"like {parts.like}" if parts.like else ""
    return f"{'with' if parts.cuda_graph else 'without'} a CUDA graph"


def _part_cell(parts: DeviceTimes, name: str) -> Cell:
    ms = getattr(parts, name)
    return Cell(reason="not timed apart") if ms is None else Cell(text.figure(ms), order=ms)
