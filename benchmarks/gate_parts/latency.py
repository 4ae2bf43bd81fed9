"""Intervals of latency ratios and percentiles on simulated rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from optkit.measure.statistics import paired_gain, paired_ratio, percentiles

Floats = NDArray[np.float64]
Interval = tuple[float, float]
CONFIDENCE = 0.95
LABELS = ("p50", "p90", "p99")
NOISE = 0.03  # spread of a round's log-ratio
SPREAD = 0.1  # of the logarithms of a round's calls, and of rounds that differ


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
    """How often the interval of a percentile held the truth, where it was not refused, and on which side it missed."""

    percentile: str
    calls: int
    rounds_differ: bool
    draws: int
    coverage: float | None
    too_high: float | None
    too_low: float | None
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
    found = []
    for differ in (False, True):
        for per_round in (20, 100):
            intervals = []
            for _ in range(draws):
                times = rng.standard_exponential((40, per_round)) + differ * rng.standard_normal((40, 1))
                samples = np.exp(SPREAD * times).ravel().tolist()
                intervals.append(percentiles(samples, [per_round] * 40).intervals)
            for label in LABELS:
                given = np.array([one[label] for one in intervals if label in one])
                found.append(_quantile(label, 40 * per_round, differ, draws, given))
    return found


def _quantile(label: str, calls: int, differ: bool, draws: int, given: Floats) -> Quantile:
    """What intervals (n, 2) say of a percentile whose true value is known."""
    shares: tuple[float | None, ...] = (None, None, None)
    if len(given):
        value = math.exp(SPREAD * true_quantile(float(label[1:]) / 100, differ))
        above, below = (given[:, 0] > value).mean(), (given[:, 1] < value).mean()
        shares = (float(1 - above - below), float(above), float(below))
    return Quantile(label, calls, differ, draws, *shares, 1 - len(given) / draws)


def true_quantile(share: float, differ: bool) -> float:
    """Of a standard exponential variable, with a standard normal one added where rounds differ; by bisection."""
    if not differ:
        return -math.log(1 - share)
    below = NormalDist().cdf
    low, high = -10.0, 50.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        is_less = below(middle) - math.exp(0.5 - middle) * below(middle - 1) < share
        low, high = (middle, high) if is_less else (low, middle)
    return low
