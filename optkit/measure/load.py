"""Load from many requests at once: offline (all work is there) and server (queries arrive at random).

The scenarios are MLPerf Inference's (Reddi et al. 2020, arXiv 1911.02549, section IV), with one image batch a query.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from optkit.measure.latency import Stopwatch

Call = Callable[[], object]
TAIL = 0.01  # share of queries that may be late: the bound is one on p99
QUERIES = 662  # of a run, as many as a p99 is given of at all (see `statistics.ENOUGH`)
PRECISION = 0.05  # of the rate that is searched for
LEAST = 0.2  # of the capacity: lower rates take minutes to try, and say that the machine is disturbed


def run_offline(callers: Sequence[Call], seconds: float) -> float:
    """Calls per second, when every caller works without a pause in a thread of its own.

    Each is counted for as long as it worked, at least one call: the last ones to end do not lower the figure.
    """

    def work(call: Call) -> float:
        watch, done = Stopwatch(), 0
        while not done or watch.seconds() < seconds:
            call()
            done += 1
        return done / watch.seconds()

    with ThreadPoolExecutor(len(callers)) as pool:
        return sum(pool.map(work, callers))


def run_server(
    callers: Sequence[Call], rate: float, bound_ms: float, seed: int, queries: int = QUERIES
) -> list[float] | None:
    """Milliseconds from arrival to answer of queries that arrive at random (Poisson), `rate` in a second.

    Whoever of `callers` is free takes the next query; waiting for one counts. None, and an early end, when more than
    1 % of the queries were later than `bound_ms`.
    """
    arrivals = np.random.default_rng(seed).exponential(1 / rate, queries).cumsum().tolist()
    allowed = math.floor(TAIL * queries)
    numbers, watch = count(), Stopwatch()
    latencies: list[float] = []
    late: list[float] = []

    def work(call: Call) -> None:
        while (number := next(numbers)) < queries and len(late) <= allowed:
            if (wait := arrivals[number] - watch.seconds()) > 0:
                time.sleep(wait)
            call()
            latency_ms = (watch.seconds() - arrivals[number]) * 1000
            latencies.append(latency_ms)
            if latency_ms > bound_ms:
                late.append(latency_ms)

    with ThreadPoolExecutor(len(callers)) as pool:
        list(pool.map(work, callers))
    return None if len(late) > allowed else latencies


@dataclass(frozen=True)
class Sustained:
    """A rate that kept the bound, with the latencies of its run, and a higher one that did not (None: unknown)."""

    queries_per_s: float
    latencies_ms: list[float]
    too_fast: float | None


def sustained_rate(probe: Callable[[float], list[float] | None], capacity: float) -> Sustained | None:
    """The highest rate that keeps the bound, to within 5 %, by bisection between a fifth of `capacity` and all of it.

    `probe(rate)` runs the load and answers as `run_server` does; a rate that failed is tried once more, as other work
    may have been the reason. None when no rate that was tried keeps it.
    """
    best: Sustained | None = None
    low, high = LEAST * capacity, capacity
    while high - low > PRECISION * high:
        rate = (low + high) / 2
        latencies = probe(rate) or probe(rate)
        if latencies is None:
            high = rate
        else:
            low, best = rate, Sustained(rate, latencies, None)
    return best and replace(best, too_fast=high if high < capacity else None)
