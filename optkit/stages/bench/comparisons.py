"""How fast every model is against the first one, by rounds in which both had their turn."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from optkit.measure.statistics import paired_ratio
from optkit.stages.bench.candidate import Candidate

MIN_ROUNDS = 3  # fewer say nothing of chance


def comparisons(candidates: list[Candidate], batch: int, confidence: float) -> list[dict[str, Any]]:
    """Latency ratios to the first model that was timed enough at this batch size, and what may be said of them."""
    timed = [
        one
        for one in candidates
        if one.computes and batch in one.timings and len(one.timings[batch].rounds) >= MIN_ROUNDS
    ]
    found = [_compare(one, timed[0], batch, confidence) for one in timed[1:]]
    return [row for row in found if row]


def _compare(
    candidate: Candidate, reference: Candidate, batch: int, confidence: float
) -> dict[str, Any] | None:
    this, other = (one.timings[batch].rounds for one in (candidate, reference))
    shared = sorted(this.keys() & other.keys())
    if len(shared) < MIN_ROUNDS:
        return None
    medians = [np.array([statistics.median(rounds[number]) for number in shared]) for rounds in (this, other)]
    ratio = paired_ratio(*medians, confidence)
    return {
        "name": candidate.name,
        "key": candidate.artifact.key,
        "runtime": candidate.runtime,
        "batch": batch,
        "reference": {"name": reference.name, "key": reference.artifact.key, "runtime": reference.runtime},
        "ratio": ratio.value,
        "interval": [ratio.low, ratio.high],
        "confidence": confidence,
        "verdict": "faster" if ratio.high < 1 else "slower" if ratio.low > 1 else "cannot tell",
        "rounds": len(shared),
        "seconds": round(sum(sum(rounds[number]) for rounds in (this, other) for number in shared) / 1000, 3),
    }
