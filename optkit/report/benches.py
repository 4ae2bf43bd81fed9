"""What bench steps found out, read from their manifests; thousands of raw samples become small curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from statistics import median
from typing import Any

from pydantic import ValidationError

from optkit.core.types import Measurement
from optkit.report.bench_schema import Bench, Distribution
from optkit.report.findings import unreadable
from optkit.report.schema import Step

# Shares of the calls at which a curve has a point: closer where the tail is.
SHARES = (*(index / 50 for index in range(1, 49)), 0.97, 0.98, 0.985, 0.99, 0.995, 0.999, 0.9999, 1.0)
MAX_ROUNDS = 200  # points of a course; more rounds are taken together
KEPT = ("comparisons", "flips", "layers", "roofline", "trace", "failed", "interrupted")  # of the details


def benches(steps: Sequence[Step]) -> list[Bench]:
    """One for every bench step."""
    return [_bench(step) for step in steps if step.manifest.stage == "bench"]


def _bench(step: Step) -> Bench:
    details = {name: value for name, value in step.manifest.details.items() if name in KEPT and value}
    try:
        found = Bench.model_validate({"step": step.name, **details})
        return found.model_copy(update={"distributions": tuple(_distributions(step.manifest.measurements))})
    except ValidationError as error:
        raise unreadable(step, error) from None


def _distributions(measurements: Sequence[Measurement]) -> Iterator[Distribution]:
    for measured in measurements:
        known = measured.conditions
        samples = [value for value in measured.samples if math.isfinite(value)]
        if measured.name != "latency_ms" or not samples:
            continue
        rounds, each = _course(samples, known.get("rounds"))
        yield Distribution(
            name=known.get("model") or "",
            key=known.get("key") or "",
            runtime=known.get("runtime") or "",
            batch=known.get("batch") or 0,
            calls=len(samples),
            ecdf=ecdf(samples),
            rounds=rounds,
            rounds_each=each,
        )


def ecdf(samples: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Points (value, share of samples up to it) of at least one sample, at most one for each of SHARES."""
    ordered = sorted(samples)
    n = len(ordered)
    places = dict.fromkeys(max(1, math.ceil(share * n - 1e-9)) for share in SHARES)
    return ((ordered[0], 0.0), *((ordered[place - 1], place / n) for place in places))


def _course(samples: Sequence[float], sizes: Any) -> tuple[tuple[float, ...], int]:
    """The median of each round, or of every so many rounds, and how many; nothing where the rounds are not known."""
    fits = isinstance(sizes, list) and all(isinstance(size, int) and size > 0 for size in sizes)
    if not fits or sum(sizes) != len(samples):
        return (), 1
    each = math.ceil(len(sizes) / MAX_ROUNDS)
    bounds = [0, *accumulate(sizes)]
    ends = [*bounds[::each], *([bounds[-1]] if len(sizes) % each else [])]
    return tuple(median(samples[start:end]) for start, end in pairwise(ends)), each
