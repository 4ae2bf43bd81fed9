"""What gate steps decided, read from their manifests, in a sentence and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from optkit.report import text
from optkit.report.findings import unreadable
from optkit.report.gate_schema import Criterion, Gate
from optkit.report.schema import Step
from optkit.report.tables import Cell, Column, Table

COLUMNS = (
    Column("Criterion", is_number=False),
    Column("Verdict", is_number=False),
    Column("Limit"),
    Column("Measured"),
    Column("Interval"),
    Column("What would decide it", is_number=False),
    Column("In words", is_number=False),
)
TOO_FEW = "too few samples"
TONES = {"pass": "gain", "fail": "loss"}


def gates(steps: Sequence[Step]) -> list[Gate]:
    """One for every gate step."""
    found = []
    for step in steps:
        if step.manifest.stage == "gate":
            try:
                found.append(Gate.model_validate({"step": step.name, **step.manifest.details}))
            except ValidationError as error:
                raise unreadable(step, error) from None
    return found


def gate_sentence(gate: Gate) -> str:
    """`int8 in onnxruntime, batch 1, against fp32; intervals of 95 %`."""
    where = gate.candidate + (f" in {gate.runtime}" if gate.runtime else "")
    parts = [where] + ([f"batch {gate.batch}"] if gate.batch else [])
    if gate.baseline:
        other = gate.baseline_runtime not in (None, gate.runtime)
        parts.append(f"against {gate.baseline}" + (f" in {gate.baseline_runtime}" if other else ""))
    confidence = f"; intervals of {100 * gate.confidence:g} %" if gate.confidence else ""
    return f"{', '.join(parts)}{confidence}"


def gate_table(gate: Gate) -> Table:
    """A row for every criterion."""
    rows = tuple(_cells(one) for one in gate.criteria)
    return Table(f"What was asked of {gate.candidate}", COLUMNS, rows, is_ordered=True)


def _cells(found: Criterion) -> tuple[Cell, ...]:
    return (
        Cell(found.words.capitalize()),
        Cell(found.verdict, tone=TONES.get(found.verdict, "")),
        Cell(limit(found)),
        Cell(_measured(found)),
        Cell(interval(found)),
        Cell(needs(found)),
        Cell(found.text),
    )


def _measured(found: Criterion) -> str:
    if found.estimate is None:
        return "a process crashed" if found.crashed else TOO_FEW
    return amount(found, found.estimate)


def interval(found: Criterion) -> str:
    """`−1.2 … 1.9 points`; a figure that was counted is exact."""
    if found.interval is None:
        return "" if found.estimate is None else "exact"
    low, high = (amount(found, bound) for bound in found.interval)
    return f"{low.removesuffix(f' {found.unit}')} … {high}"


def amount(found: Criterion, value: float) -> str:
    """`0.43 points`, `97.1 %`, `4.01 MB`."""
    if found.unit == "share":
        return text.percent(value)
    if found.unit == "bytes":
        return text.size(value)
    unit = "×" if found.unit == "times" else f" {found.unit}".rstrip()
    number = text.grouped(value) if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number}{unit}".replace("-", "−")


def limit(found: Criterion) -> str:
    """`≤ 0.5 points`."""
    if found.limit is None:
        return ""
    side = {"max": "≤ ", "min": "≥ "}.get(found.name.split("_")[0], "")
    return f"{side}{amount(found, found.limit)}"


def needs(found: Criterion) -> str:
    """`about 12 000 images more`."""
    words = {"images": "images", "seconds": "seconds of timing each model"}
    parts = [
        f"about {text.grouped(value)} {words.get(name, name)} more"
        for name, value in (found.needs or {}).items()
    ]
    return ", ".join(parts)
