"""What was to be shown, and whether it was."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from int8_parts.evaluate import Figure

COMPARE = {"≥": operator.ge, "≤": operator.le}


@dataclass(frozen=True)
class Demand:
    """`measured` against `limit`; `met` by the figure itself, `certain` when by all of its interval."""

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

    def line(self) -> str:
        """One line for people: the demand, the figure, the verdict."""
        verdict = "PASS" if self.met else "FAIL"
        found = "not measured" if self.measured is None else f"{self.measured:.4g}"
        if self.interval:
            found += f" ({self.interval[0]:.4g} to {self.interval[1]:.4g})"
        unsure = ", but its interval reaches beyond" if self.met and not self.certain else ""
        note = f"  [{self.note}]" if self.note else ""
        return f"{verdict}  {self.point}. {self.what} {self.sense} {self.limit:g} {self.unit}: {found}{unsure}{note}"


def demand(
    point: int, what: str, wanted: tuple[str, float, str], figure: Figure | float | None, note: str = ""
) -> Demand:
    """`wanted` is sense, limit and unit. What was not measured is not met."""
    sense, limit, unit = wanted
    value = figure.value if isinstance(figure, Figure) else figure
    interval = figure.interval if isinstance(figure, Figure) else None
    holds = COMPARE[sense]
    met = value is not None and bool(holds(value, limit))
    certain = met and all(holds(bound, limit) for bound in interval or ())
    return Demand(point, what, sense, limit, unit, value, interval, met, certain, note)
