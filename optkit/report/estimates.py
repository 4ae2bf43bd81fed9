"""Throughput on GPUs that are not here: estimates, never measurements."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from optkit.report import text
from optkit.report.bench_schema import Estimate
from optkit.report.findings import unreadable
from optkit.report.schema import Step
from optkit.report.tables import Cell, Column, Table, without_empty_columns

ESTIMATES = TypeAdapter(tuple[Estimate, ...])
BASIS = TypeAdapter(str)
COLUMNS = (
    Column("Model", is_number=False),
    Column("GPU", is_number=False),
    Column("Setup", is_number=False),
    Column("Precision", is_number=False),
    Column("Batch"),
    Column("Images/s"),
    Column("Error of images/s on held-out models"),
)


def estimates(steps: Sequence[Step]) -> list[Estimate]:
    """Those of every step that made any."""
    found: list[Estimate] = []
    for step in steps:
        details = step.manifest.details
        try:
            of_step = ESTIMATES.validate_python(details.get("estimates") or ())
            basis = BASIS.validate_python(details.get("basis") or "")
        except ValidationError as error:
            raise unreadable(step, error) from None
        found += [one.model_copy(update={"basis": one.basis or basis}) for one in of_step]
    return found


def estimates_table(found: Sequence[Estimate]) -> Table:
    """Every estimate with its error beside it."""
    rows = tuple(_row(one) for one in found)
    caption = "Estimates of the throughput in images per second; nothing here was measured"
    return without_empty_columns(Table(caption, COLUMNS, rows))


def estimates_notes(found: Sequence[Estimate]) -> list[str]:
    """What the estimates rest on, and which go beyond it."""
    bases = dict.fromkeys(one.basis for one in found if one.basis)
    beyond = [one for one in found if one.beyond]
    return [
        *(f"Basis: {basis}." for basis in bases),
        *(
            f"Extrapolated, with twice the range: {one.name} on {one.setup or one.gpu}: {'; '.join(one.beyond)}."
            for one in beyond
        ),
    ]


def _row(found: Estimate) -> tuple[Cell, ...]:
    low_high = found.range_90
    precision, _, how = found.precision.partition(" (")
    marks = ("extrapolated",) if found.beyond else ()
    span = f", 90 %: {text.figure(low_high[0])} – {text.figure(low_high[1])}" if low_high else ""
    return (
        Cell(found.name),
        Cell(found.gpu),
        Cell(found.setup),
        Cell(precision.upper(), how.rstrip(")")),
        Cell(str(found.batch) if found.batch else "", order=found.batch),
        Cell(text.figure(found.images_per_s), f"{found.word}{span}", found.images_per_s, marks=marks),
        error_cell(found),
    )


def error_cell(found: Estimate) -> Cell:
    """How far the images per second were off on models that such estimates were not fitted on."""
    if found.median_error is None:
        return Cell(reason="not stated")
    parts = [f"mean {text.percent(found.mape)}"] if found.mape is not None else []
    of_families = f" of {found.n_families} families" if found.n_families else ""
    parts += [f"{text.grouped(found.n_models)} models{of_families}"] if found.n_models else []
    return Cell(f"median {text.percent(found.median_error)}", ", ".join(parts), found.median_error)
