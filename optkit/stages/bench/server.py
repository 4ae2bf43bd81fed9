"""The server load: how many requests per second, coming at random, keep a latency bound."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from optkit.core.progress import Reporter, Task
from optkit.measure.load import LEAST, QUERIES, TAIL, sustained_rate
from optkit.stages.bench.candidate import Candidate
from optkit.stages.bench.process import CrashedError
from optkit.stages.bench.rounds import streams


def measure_server(candidates: list[Candidate], bound_ms: float, seed: int, reporter: Reporter) -> None:
    """The most single images per second whose p99 keeps `bound_ms`; one model after the other."""
    with reporter.track("Server") as task:
        for candidate in candidates:
            if 1 not in candidate.timings:
                candidate.not_measured["server"] = "not timed at batch 1"
                continue
            try:
                candidate.server = _sustained(candidate, bound_ms, seed, task)
            except CrashedError:  # kept by the candidate
                continue


def _sustained(candidate: Candidate, bound_ms: float, seed: int, task: Task) -> dict[str, Any] | None:
    at_once = streams(candidate)
    capacity = 1000 * at_once / statistics.median(candidate.timings[1].samples)

    def probe(rate: float) -> list[float] | None:
        latencies: list[float] | None = candidate.call("server", rate, bound_ms, at_once, seed)
        task.advance(QUERIES, note=f"{candidate.name}, {rate:.0f}/s")
        return latencies

    found = sustained_rate(probe, capacity)
    if found is None:
        candidate.not_measured["server"] = (
            f"more than {TAIL:.0%} of the requests take over {bound_ms:g} ms, at {LEAST * capacity:.0f} a second too"
        )
        return None
    return {
        "bound_ms": bound_ms,
        "percentile": "p99",
        "p99_ms": float(np.percentile(found.latencies_ms, 99, method="inverted_cdf")),
        "queries": len(found.latencies_ms),
        "queries_per_s": found.queries_per_s,
        "too_fast": found.too_fast,
        "streams": at_once,
    }
