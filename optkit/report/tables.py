"""Tables that the page, Markdown and the comparison of runs show alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optkit.report.base import NO_REASON, Number


@dataclass(frozen=True)
class Column:
    """A heading; `is_number` aligns its cells to the right."""

    words: str
    is_number: bool = True


@dataclass(frozen=True)
class Cell:
    """`text` with a smaller `note` of one line or more; without text, `reason` says why there is none.

    Sorted by `order`, else by the text; an empty order comes last.
    """

    text: str = ""
    note: str = ""
    order: Number | str | None = None
    tone: str = ""  # gain or loss
    reason: str = ""
    marks: tuple[str, ...] = ()  # such as "baseline"


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its heading. `gaps` tells, by column, why it was left out."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    gaps: tuple[tuple[str, str], ...] = ()
    is_ordered: bool = False  # the order of the rows means something


def without_empty_columns(table: Table) -> Table:
    """The table without the columns in which no cell has a text; the reasons they gave become its `gaps`."""
    kept = [place for place in range(len(table.columns)) if any(row[place].text for row in table.rows)]
    gaps = []
    for place, column in enumerate(table.columns):
        reasons = dict.fromkeys(row[place].reason for row in table.rows)
        reasons = {reason: None for reason in reasons if reason not in ("", NO_REASON)}
        if place not in kept and reasons:
            gaps.append((column.words, "; ".join(reasons)))
    return replace(
        table,
        columns=tuple(table.columns[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in table.rows),
        gaps=tuple(gaps),
    )


def is_sortable(table: Table) -> bool:
    """Whether there is an order to choose."""
    return len(table.rows) > 2 and not table.is_ordered


def order_of(cell: Cell) -> str:
    """What the page sorts the cell by; empty ones come last."""
    return "" if not cell.text else str(cell.text if cell.order is None else cell.order)


def numbered(columns: Sequence[Column]) -> list[tuple[str, Column]]:
    """Every column with the key that its rows are sorted by."""
    return [(f"c{place}", column) for place, column in enumerate(columns)]
