"""Intervals of latency ratios and percentiles on simulated rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optkit.measure.statistics import paired_gain, paired_ratio, percentiles

Floats = NDArray[np.float64]
Interval = tuple[float, float]
CONFIDENCE = 0.95
LABELS = ("p50", "p90", "p99")
NOISE = 0.03  # spread of a round's log-ratio


@dataclass(frozen=True)
class Rounds:
    """A method for the ratio of latencies: how often it called a model faster or slower than itself."""

    method: str
    rounds: int
    noise: str
    wrong: float
    width: float


@dataclass(frozen=True)
class Quantile:
    """How often the interval of a percentile held the truth, where it was not refused."""

    percentile: str
    calls: int
    rounds_differ: bool
    coverage: float | None
    refused: float


def plain(rng: np.random.Generator, n: int) -> Floats:
    return NOISE * rng.standard_normal(n)


def correlated(rng: np.random.Generator, n: int) -> Floats:
    """Each round like the one before it: 0.2."""
    noise = rng.standard_normal(n)
    for i in range(1, n):
        noise[i] = 0.2 * noise[i - 1] + math.sqrt(1 - 0.2**2) * noise[i]
    return NOISE * noise


def heavy(rng: np.random.Generator, n: int) -> Floats:
    """Student's t with three degrees of freedom."""
    return NOISE * rng.standard_t(3, n)


def disturbed(rng: np.random.Generator, n: int, base: Callable[..., Floats] = plain) -> Floats:
    """Either model takes twice as long in 5 of 100 rounds."""
    bursts = (rng.random(n) < 0.05).astype(float) - (rng.random(n) < 0.05)
    return base(rng, n) + math.log(2) * bursts


def all_of_it(rng: np.random.Generator, n: int) -> Floats:
    return disturbed(rng, n, correlated)


NOISES = {one.__name__: one for one in (plain, correlated, heavy, disturbed, all_of_it)}


def student_mean(logs: Floats) -> Interval:
    """The mean, with Student's t."""
    _, low, high = paired_gain(np.zeros(len(logs)), logs)
    return low, high


def percentile_bootstrap(logs: Floats) -> Interval:
    """The median, with percentiles of resamples."""
    drawn = np.median(logs[np.random.default_rng(0).integers(0, len(logs), (1000, len(logs)))], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def shipped_ratio(logs: Floats) -> Interval:
    ratio = paired_ratio(np.exp(logs), np.ones(len(logs)), CONFIDENCE)
    return math.log(ratio.low), math.log(ratio.high)


RATIO_METHODS = {
    "paired_ratio": shipped_ratio,
    "mean, Student's t": student_mean,
    "median, percentiles": percentile_bootstrap,
}


def simulate_ratio(rounds: Sequence[int], draws: int, seed: int) -> list[Rounds]:
    """A model against itself."""
    found = []
    for n in rounds:
        for noise, draw in NOISES.items():
            rng = np.random.default_rng(seed)
            logs = [draw(rng, n) for _ in range(draws)]
            for method, interval in RATIO_METHODS.items():
                bounds = np.array([interval(one) for one in logs])
                wrong = float(((bounds[:, 0] > 0) | (bounds[:, 1] < 0)).mean())
                found.append(Rounds(method, n, noise, wrong, float(np.median(bounds[:, 1] - bounds[:, 0]))))
    return found


def simulate_percentiles(draws: int, seed: int) -> list[Quantile]:
    """40 rounds of calls, whose times have a long tail; rounds are alike, or differ as much as calls do."""
    rng = np.random.default_rng(seed)

    def calls(per_round: int, differ: bool) -> Floats:
        times = 0.1 * rng.standard_exponential((40, per_round))
        return np.exp(times + 0.1 * differ * rng.standard_normal((40, 1))).ravel()

    found = []
    for differ in (False, True):
        truth = np.concatenate([calls(1000, differ) for _ in range(200)])
        for per_round in (20, 100):
            samples = [calls(per_round, differ) for _ in range(draws)]
            rounds = [per_round] * 40
            labels = {
                label: [percentiles(one.tolist(), rounds).intervals.get(label) for one in samples]
                for label in LABELS
            }
            for label, intervals in labels.items():
                value = np.percentile(truth, float(label[1:]))
                given = [one for one in intervals if one]
                hits = float(np.mean([low <= value <= high for low, high in given])) if given else None
                found.append(Quantile(label, 40 * per_round, differ, hits, 1 - len(given) / draws))
    return found
