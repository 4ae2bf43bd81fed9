"""The recovery ladder: rung by rung, what helps is kept, until the budget holds.

A rung is a module with its `ORDER`, `improve(candidate, bench) -> (candidate, note) | None` and, where it can be
taken more than once while it helps, `TRIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core import discover
from optkit.core.errors import InputError
from optkit.graph.torch_operators import Unsupported
from optkit.measure.latency import Stopwatch
from optkit.measure.parity import Parity
from optkit.measure.statistics import paired_gain
from optkit.stages.quantize.budget import Checked
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.config import RUNGS, Config
from optkit.stages.quantize.workbench import Workbench

CALIBRATION = "calibration"  # the first entry of every ladder


@dataclass
class Ladder:
    """Where the ladder stands: the best candidate, how it did, and what every rung bought and cost.

    `why_slower` tells of a file that is slower than FP32: a rung that changes the plan may not end with one.
    """

    candidate: Candidate
    bench: Workbench
    config: Config
    check: Callable[[onnx.ModelProto], Checked]
    why_slower: Callable[[onnx.ModelProto], str] = lambda _: ""
    entries: list[dict[str, Any]] = field(default_factory=list)
    calibration_seconds: float = 0.0
    checked: Checked | None = None
    sqnr_db: NDArray[np.float64] | None = None  # of every held-out image

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
            self._add(name, watch.seconds(), str(error))
            return False
        except InputError as error:  # what the rungs below reached is kept
            self._add(name, watch.seconds(), f"{error} {error.why}")
            return False
        if found is None:
            self._add(name, watch.seconds(), "nothing that it could change")
            return False
        return self._judge(name, *found, watch)

    @property
    def held(self) -> bool:
        """Whether there is a budget and it is kept."""
        return self.config.has_budget and self.checked is not None and self.checked.holds(self.config)

    def _judge(self, name: str, candidate: Candidate, note: str, watch: Stopwatch) -> bool:
        """Keep `candidate` when it is surely better on images that nothing was fitted to or chosen by."""
        file = candidate.build()
        score, sqnr_db = self.bench.held.parity(file, self.bench.io)
        seconds = watch.seconds()
        if self.sqnr_db is None:
            kept, seconds = True, seconds + self.calibration_seconds
        else:
            gain, low, high = paired_gain(self.sqnr_db, sqnr_db)
            kept = low > 0
            if gain > 0 and not kept:
                doubt = f"{gain:+.1f} dB on {len(sqnr_db)} images may be chance"
                interval = f" (95 %: {low:+.1f} to {high:+.1f})" if len(sqnr_db) > 1 else ""
                note = "; ".join(filter(None, [note, doubt + interval]))
            if kept and candidate.plan is not self.candidate.plan and (slow := self.why_slower(file)):
                kept, note = False, "; ".join(filter(None, [note, slow]))
        if kept:
            self.candidate, self.sqnr_db, self.checked = candidate, sqnr_db, self.check(file)
        self._add(name, seconds, note, kept, score)
        return kept

    def _add(
        self, name: str, seconds: float, note: str, kept: bool = False, score: Parity | None = None
    ) -> None:
        checked = self.checked if kept else None
        self.entries.append(
            {
                "rung": name.replace("_", " "),
                "kept": kept,
                "sqnr_db": score and round(score.sqnr_db, 2),
                "agreement": score and score.agreement,
                "drop": checked and checked.drop,
                "validation": checked and checked.details(),
                "seconds": round(seconds, 1),
                "note": note,
            }
        )


def rungs(config: Config) -> list[str]:
    """The rungs to climb, lowest first."""
    wanted = config.rungs or tuple(discover.names(RUNGS))
    return sorted(wanted, key=lambda name: int(discover.load(RUNGS, name, "rung").ORDER))
