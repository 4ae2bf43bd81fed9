"""The recovery ladder: rung by rung, what helps is kept, until the budget holds.

A rung is a module with its `ORDER`, `improve(candidate, bench) -> (candidate, note) | None` and, where it can be
taken more than once while it helps, `TRIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import onnx

from optkit.core import discover
from optkit.graph.torch_module import Unsupported
from optkit.measure.latency import Stopwatch
from optkit.stages.quantize.budget import Checked
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.config import RUNGS, Config
from optkit.stages.quantize.workbench import Workbench

CALIBRATION = "calibration"  # the first entry of every ladder


@dataclass
class Ladder:
    """Where the ladder stands: the best candidate, how it did, and what every rung bought and cost."""

    candidate: Candidate
    bench: Workbench
    config: Config
    check: Callable[[onnx.ModelProto], Checked]
    entries: list[dict[str, Any]] = field(default_factory=list)
    checked: Checked | None = None
    sqnr_db: float = 0.0

    def climb(self) -> None:
        """Every wanted rung in its order, until the budget holds; without one, all of them."""
        self._judge(CALIBRATION, self.candidate, "", Stopwatch())
        for name in rungs(self.config):
            rung = discover.load(RUNGS, name, "rung")
            for _ in range(getattr(rung, "TRIES", 1) if self.config.has_budget else 1):
                if self.held:
                    return
                if not self._climb(name, rung):
                    break

    def _climb(self, name: str, rung: ModuleType) -> bool:
        """Whether the rung helped."""
        watch = Stopwatch()
        try:
            found = rung.improve(self.candidate, self.bench)
        except Unsupported as error:
            self._add(name, False, None, None, watch, str(error))
            return False
        if found is None:
            self._add(name, False, None, None, watch, "nothing that it could change")
            return False
        return self._judge(name, *found, watch)

    @property
    def held(self) -> bool:
        """Whether there is a budget and it is kept."""
        return self.config.has_budget and self.checked is not None and self.checked.holds(self.config)

    def _judge(self, name: str, candidate: Candidate, note: str, watch: Stopwatch) -> bool:
        """Keep `candidate` when it is better on images that nothing was fitted to."""
        file = candidate.build()
        score = self.bench.score(file)
        kept = not self.entries or score.sqnr_db > self.sqnr_db
        if kept:
            self.candidate, self.sqnr_db = candidate, score.sqnr_db
            self.checked = self.check(file)
        self._add(name, kept, score.sqnr_db, score.agreement, watch, note)
        return kept

    def _add(
        self,
        name: str,
        kept: bool,
        sqnr_db: float | None,
        agreement: float | None,
        watch: Stopwatch,
        note: str,
    ) -> None:
        drop = self.checked.drop if kept and self.checked else None
        self.entries.append(
            {
                "rung": name.replace("_", " "),
                "kept": kept,
                "sqnr_db": None if sqnr_db is None else round(sqnr_db, 2),
                "agreement": agreement,
                "drop": drop,
                "seconds": round(watch.seconds(), 1),
                "note": note,
            }
        )


def rungs(config: Config) -> list[str]:
    """The rungs to climb, lowest first."""
    wanted = config.rungs or tuple(discover.names(RUNGS))
    return sorted(wanted, key=lambda name: int(discover.load(RUNGS, name, "rung").ORDER))
