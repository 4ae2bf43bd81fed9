"""Timing as NVIDIA's trtexec does by default, so that figures can be laid beside its own.

Its versions differ: https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/api/migration/tensorrt-10x-to-11x-trtexec.html
Warnings: samples/common/sampleReporting.cpp of github.com/NVIDIA/TensorRT.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optkit.core.errors import UsageError, closest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optkit.runtimes.base import Profiled

UNSTABLE = 0.025  # standard deviation by mean of the compute times
ENQUEUE_BOUND = 0.8  # median time of launching by median compute time
PILOT_RUNS = 10


@dataclass(frozen=True)
class TrtexecDefaults:
    """What a major version of trtexec does when nothing is asked for."""

    major: int
    transfers: bool
    cuda_graph: bool
    spin_wait: bool
    warm_up_ms: float = 200.0
    seconds: float = 3.0
    min_runs: int = 10

    @property
    def text(self) -> str:
        """The defaults, and the options that say the same in other versions."""
        copies = "pixels and logits are copied" if self.transfers else "no copies: --noDataTransfers in 10.x"
        graph = "a CUDA graph: --useCudaGraph in 10.x" if self.cuda_graph else "no CUDA graph"
        wait = "the host spins while it waits: --useSpinWait in 10.x" if self.spin_wait else "the host sleeps"
        return (
            f"as trtexec {self.major}.x by default: {self.warm_up_ms:g} ms warm-up, then {self.seconds:g} s and at "
            f"least {self.min_runs} runs; {copies}; {graph}; {wait}. Copies are not overlapped with the next "
            "run's computation, as trtexec's are: compare times, not throughput."
        )


DEFAULTS = {
    "trtexec-10": TrtexecDefaults(10, transfers=True, cuda_graph=False, spin_wait=False),
    "trtexec-11": TrtexecDefaults(11, transfers=False, cuda_graph=True, spin_wait=True),
}


def defaults(name: str) -> TrtexecDefaults:
    """The preset of that name (`trtexec-10`); UsageError when there is none."""
    if name not in DEFAULTS:
        raise UsageError(f"Unknown preset {name!r}.", hint=closest(name, DEFAULTS))
    return DEFAULTS[name]


def profile_like(
    session: Profiled, pixels: NDArray[np.float32], how: TrtexecDefaults, clock_ns: Callable[[], int]
) -> dict[str, list[float]]:
    """Times of a session's parts under a preset; see `Profiled.profile`. A few runs tell how many fill the time."""

    def profile(runs: int) -> dict[str, list[float]]:
        return session.profile(pixels, runs, how.cuda_graph, how.transfers, how.spin_wait, clock_ns)

    run_ms = max(statistics.median(latencies(profile(PILOT_RUNS))), 1e-3)
    profile(math.ceil(how.warm_up_ms / run_ms))
    return profile(max(how.min_runs, math.ceil(1000 * how.seconds / run_ms)))


def latencies(times: dict[str, list[float]]) -> list[float]:
    """What trtexec calls Latency: copy in, compute and copy out, run by run; without copies compute alone."""
    parts = [times[name] for name in ("h2d", "compute", "d2h") if name in times]
    return [sum(run) for run in zip(*parts, strict=True)]


def warnings(times: dict[str, list[float]]) -> list[str]:
    """trtexec's warnings about the times of a session's parts."""
    medians = {name: statistics.median(samples) for name, samples in times.items()}
    compute = medians["compute"]
    variation = statistics.pstdev(times["compute"]) / statistics.fmean(times["compute"])
    found = []
    if variation > UNSTABLE:
        found.append(
            f"Compute times vary by {variation:.1%} of their mean (above {UNSTABLE:.1%} they are unstable): "
            "lock the GPU's clocks, or keep other work off it."
        )
    if medians.get("enqueue", 0.0) > ENQUEUE_BOUND * compute:
        found.append(
            f"Launching takes {medians['enqueue']:.3g} ms, computing {compute:.3g} ms: the GPU may wait for the host. "
            "Use a CUDA graph, or a larger batch."
        )
    for name, what in (("h2d", "in"), ("d2h", "out")):
        if medians.get(name, 0.0) >= compute:
            found.append(
                f"Copying {what} takes {medians[name]:.3g} ms, computing {compute:.3g} ms: the transfers are the limit."
            )
    return found
