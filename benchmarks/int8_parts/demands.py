"""What was to be shown, and whether it was."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from int8_parts.evaluate import Figure

COMPARE = {"≥": operator.ge, "≤": operator.le}


@dataclass(frozen=True)
class Demand:
    """`measured` against `limit`, None where nothing was measured, which meets nothing.

    `met` by the figure itself, `certain` when by all of its interval.
    """

    point: int
    what: str
    sense: str
    limit: float
    unit: str
    measured: float | None
    interval: tuple[float, float] | None
    met: bool
    certain: bool
    note: str = ""


def demand(
    point: int, what: str, wanted: tuple[str, float, str], figure: Figure | float | None, note: str = ""
) -> Demand:
    """`wanted` is sense, limit and unit."""
    sense, limit, unit = wanted
    value = figure.value if isinstance(figure, Figure) else figure
    interval = figure.interval if isinstance(figure, Figure) else None
    holds = COMPARE[sense]
    met = value is not None and bool(holds(value, limit))
    certain = met and all(holds(bound, limit) for bound in interval or ())
    return Demand(point, what, sense, limit, unit, value, interval, met, certain, note)
