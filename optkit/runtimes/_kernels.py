"""How long the parts of a run take, as the runtimes tell it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WARM_UP = 5


@dataclass(frozen=True)
class KernelTime:
    """Typical milliseconds of one kernel, under the name and kind that the runtime has for it.

    `origins` are the nodes or modules that it is made of, none for what the runtime adds itself, None where it does
    not say; `precision` is what it computes in ("fp32"), empty where it does not say.
    """

    name: str
    kind: str
    ms: float
    origins: tuple[str, ...] | None = None
    precision: str = ""


@dataclass(frozen=True)
class LayerTimes:
    """The kernels in the order of execution; `rest_ms` is what a run takes beside them."""

    kernels: list[KernelTime]
    rest_ms: float


@dataclass(frozen=True)
class Repeats:
    """A batch, how often it is run after `WARM_UP` runs, and the clock, in seconds."""

    pixels: NDArray[np.float32]
    runs: int
    clock: Callable[[], float]

    def time(self, call: Callable[[], object], after: Callable[[], object] = lambda: None) -> list[float]:
        """Milliseconds of each call; what follows it in `after` is not timed, nor done while warming up."""
        times = []
        for index in range(WARM_UP + self.runs):
            started = self.clock()
            call()
            seconds = self.clock() - started
            if index >= WARM_UP:
                times.append(1000 * seconds)
                after()
        return times


def layer_medians(
    totals: Sequence[float],
    runs: Sequence[dict[str, float]],
    describe: Callable[[str, float], KernelTime],
) -> LayerTimes:
    """Of the milliseconds of whole runs and those of their kernels; `describe` makes a kernel of name and median.

    A run that lacks a kernel counts as 0 for it. What disturbs single kernels of a run, as other work on the machine
    does, is in no median: where it disturbs every run, the whole is shorter than the median run.
    """
    names = dict.fromkeys(name for run in runs for name in run)
    medians = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in names}
    rest = [total - sum(run.values()) for total, run in zip(totals, runs, strict=True)]
    return LayerTimes([describe(name, ms) for name, ms in medians.items()], statistics.median(rest))
