"""Percentiles, intervals and paired comparisons: what samples do and do not say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000  # bounds at 2.5 % are then known to within about a tenth of the interval

Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution

# Samples from which a percentile can be bounded from above at 99 % confidence with one sample beyond it
# (MLPerf Inference, early stopping): the smallest n with n·q^(n-1)·(1-q) + q^n <= 1 %.
ENOUGH = {50: 11, 90: 64, 99: 662}


@dataclass(frozen=True)
class Percentiles:
    """Nearest-rank percentiles, that is, values which occurred. `indicative` names those for which the
    sample is too small to bound them at 99 % confidence."""

    p50: float
    p90: float
    p99: float
    indicative: tuple[str, ...]

    def values(self) -> dict[str, float]:
        return {"p50": self.p50, "p90": self.p90, "p99": self.p99}


def percentiles(samples: Sequence[float]) -> Percentiles:
    """p50, p90 and p99 of at least one sample."""
    p50, p90, p99 = (float(value) for value in np.percentile(samples, list(ENOUGH), method="inverted_cdf"))
    few = tuple(f"p{percent}" for percent, needed in ENOUGH.items() if len(samples) < needed)
    return Percentiles(p50, p90, p99, few)


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927); honest near 0 and 1, where the textbook one is not."""
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def t95(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t, to 0.8 % at two degrees of freedom and 0.1 % from three on.

    Expansion about the normal quantile (Abramowitz and Stegun, 26.7.5); for one degree it is too far off.
    """
    if freedom == 1:
        return math.tan(0.475 * math.pi)  # Cauchy's distribution
    z = Z95
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def paired_gain(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of `after` − `before`, of the same n things, and its 95 % interval (Student's t); n at least 1.

    One pair says nothing about chance: its interval is infinite.
    """
    gains = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    mean, n = float(gains.mean()), len(gains)
    spread = t95(n - 1) * float(gains.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return mean, mean - spread, mean + spread


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], n: int, seed: int
) -> NDArray[np.float64]:
    """95 % intervals (k, 2) of the k figures that `statistic` makes of n samples and how often each counts.

    Percentiles of resamples (Efron 1979), shifted so that their mean is the estimate: drawing with
    repetition adds a bias of its own to figures such as the calibration error.
    """
    rng = np.random.default_rng(seed)
    estimate = statistic(np.ones(n, np.int64))
    drawn = np.array(
        [statistic(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(RESAMPLES)], np.float64
    )
    found = np.percentile(drawn - drawn.mean(axis=0), [2.5, 97.5], axis=0) + estimate
    intervals: NDArray[np.float64] = found.T
    return intervals


def distance_bound(vector: Callable[[NDArray[np.int64]], NDArray[np.float64]], n: int, seed: int) -> float:
    """How far (L1) the vector of means that `vector` makes of n samples lies from the truth, at most, in 95 of 100.

    The 95th percentile of the distance of resamples from the sample. Within this distance of the sample's own lies
    the L1 norm of the true vector, by the triangle inequality.
    """
    rng = np.random.default_rng(seed)
    own = vector(np.ones(n, np.int64))
    draws = (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(RESAMPLES))
    return float(np.percentile([np.abs(vector(draw) - own).sum() for draw in draws], 95))


@dataclass(frozen=True)
class PairedDifference:
    """Two models on the same images: `drop` = top-1 of the first − top-1 of the second.

    `lost` images were right and became wrong, `won` the other way round; `p_value` is the chance of a
    split at least this uneven if both models were equally good.
    """

    drop: float
    interval: tuple[float, float]
    p_value: float
    lost: int
    won: int
    n: int


def paired_difference(first_right: Sequence[bool], second_right: Sequence[bool]) -> PairedDifference:
    """Exact McNemar test, and the adjusted Wald 95 % interval of Bonett and Price (2012)."""
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first.shape != second.shape or not len(first):
        raise ValueError(f"need two equally long, non-empty answers, got {first.shape} and {second.shape}")
    n = len(first)
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    lost_share, won_share = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    centre = lost_share - won_share
    spread = Z95 * math.sqrt((lost_share + won_share - centre**2) / (n + 2))
    return PairedDifference(
        drop=(lost - won) / n,
        interval=(max(-1.0, centre - spread), min(1.0, centre + spread)),
        p_value=_mcnemar_exact(lost, won),
        lost=lost,
        won=won,
        n=n,
    )


def _mcnemar_exact(lost: int, won: int) -> float:
    changed = lost + won
    if changed == 0:
        return 1.0
    tail = sum(math.comb(changed, i) for i in range(min(lost, won) + 1))
    return float(min(1.0, 2 * tail / 2**changed))
