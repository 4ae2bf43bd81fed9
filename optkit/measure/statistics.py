"""Percentiles, intervals and paired comparisons: what samples do and do not say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optkit.core.score import score_interval

RESAMPLES = 1000  # bounds at 2.5 % are then known to within about a tenth of the interval

Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution
FEW = 8  # successes or failures: with up to as many, Wilson's bound is too near

TRIM = (
    0.2  # of the rounds at either end; narrowest where 5 % of the rounds are disturbed, little lost elsewhere
)
ROUNDS_TO_DRAW = 15  # of fewer, resamples repeat the same few values, and their intervals are needlessly wide
# Neighbouring rounds correlate a little on every shared machine, and n of 10 to 40 are too few to see it: intervals
# that took it as 0 would say "faster" of one and the same file in 9 of 100 where it is 0.2.
LEAST_CORRELATION, MOST_CORRELATION = 0.15, 0.7

# Samples from which a percentile can be bounded from above at 99 % confidence with one sample beyond it
# (MLPerf Inference, early stopping): the smallest n with n·q^(n-1)·(1-q) + q^n <= 1 %.
ENOUGH = {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p99.9": 6636}


@dataclass(frozen=True)
class Percentiles:
    """Nearest-rank percentiles, that is, values which occurred, and their 95 % intervals, by "p50" … "p99.9".

    `refused` says of the others why the sample is too small for them.
    """

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    refused: dict[str, str]


def percentiles(samples: Sequence[float], rounds: Sequence[int] = ()) -> Percentiles:
    """Of at least one sample; `rounds` says how many samples, in order, belong to each round."""
    found = Percentiles({}, {}, {})
    ordered = np.sort(np.asarray(samples, np.float64))
    for label, needed in ENOUGH.items():
        percent = float(label[1:])
        interval = percentile_interval(samples, rounds, percent)
        if len(samples) < needed:
            found.refused[label] = f"needs {needed:,} calls, has {len(samples):,}"
        elif interval is None:
            found.refused[label] = (
                f"{len(samples):,} calls do not reach: those of one round are alike, or rounds few"
            )
        else:
            found.values[label] = float(np.percentile(ordered, percent, method="inverted_cdf"))
            found.intervals[label] = interval
    return found


def percentile_interval(
    samples: Sequence[float], rounds: Sequence[int], percent: float, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Two order statistics between which the percentile lies, whatever the distribution; None where the sample
    does not reach far enough.

    The ranks are quantiles of the binomial distribution. Where `rounds` is given, and rounds differ by more
    than chance, n is the smaller number of independent samples that would say as much (Woodruff 1952).
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    n, share = len(ordered), percent / 100
    beyond = np.asarray(samples, np.float64) >= np.percentile(ordered, percent, method="inverted_cdf")
    independent = int(n / _design_effect(beyond, rounds, confidence))
    below = np.cumsum(_binomial(independent, share))  # P(at most k samples below the percentile)
    tail = (1 - confidence) / 2
    low = int(np.searchsorted(below, tail, side="right"))  # P(fewer than `low`) <= tail
    high = int(np.searchsorted(below, 1 - tail)) + 1  # P(`high` or more) <= tail
    if low < 1 or high > independent:
        return None
    ranks = math.floor(low / independent * n), math.ceil(high / independent * n)
    return float(ordered[max(1, ranks[0]) - 1]), float(ordered[ranks[1] - 1])


def _binomial(n: int, share: float) -> NDArray[np.float64]:
    """Probabilities of 0 … n."""
    k = np.arange(n)
    steps = np.log((n - k) / (k + 1)) + math.log(share / (1 - share))
    found: NDArray[np.float64] = np.exp(np.concatenate([[0.0], np.cumsum(steps)]) + n * math.log(1 - share))
    return found


def _design_effect(beyond: NDArray[np.bool_], rounds: Sequence[int], confidence: float) -> float:
    """Variance of the share of `beyond` when whole rounds are drawn, over that of independent samples; at least 1."""
    sizes = np.asarray(rounds, np.int64)
    sizes = sizes[sizes > 0]
    if len(sizes) and int(sizes.sum()) != len(beyond):
        raise ValueError(f"rounds of {int(sizes.sum())} samples, and {len(beyond)} samples")
    share = float(beyond.mean())
    if len(sizes) < 2 or share == 1:
        return 1.0
    counts = np.add.reduceat(beyond.astype(np.float64), np.cumsum(sizes) - sizes)
    between = float(((counts - share * sizes) ** 2).sum()) * len(sizes) / (len(sizes) - 1)
    few_rounds = (student(len(sizes) - 1, confidence) / normal(confidence)) ** 2
    return max(1.0, few_rounds * between / (len(beyond) * share * (1 - share)))


@dataclass(frozen=True)
class Ratio:
    """How many times the other one's, and the interval."""

    value: float
    low: float
    high: float


def paired_ratio(
    times: NDArray[np.float64], to: NDArray[np.float64], confidence: float = 0.95, seed: int = 0
) -> Ratio:
    """`times` / `to`, from the medians of rounds (n,) that ran side by side; of one round the interval is (0, inf).

    20 % trimmed mean of the rounds' log-ratios (a round in which something else ran does not count), with a
    symmetric studentised bootstrap (Hall 1988) whose error comes from the winsorised variance (Tukey and
    McLaughlin 1963), or with their Student's t where rounds are too few to draw from. Rounds that follow each
    other are alike: the error grows with their correlation. `benchmarks/gate.py` shows the coverage.
    """
    logs = np.log(np.asarray(times, np.float64) / np.asarray(to, np.float64))
    if len(logs) < 2:
        return Ratio(math.exp(float(logs[0])), 0.0, math.inf)
    centre, error = _trimmed(logs)
    cut = int(TRIM * len(logs))
    quantile = student(len(logs) - 2 * cut - 1, confidence)
    if len(logs) >= ROUNDS_TO_DRAW and error > 0:
        rng = np.random.default_rng(seed)
        centres, errors = _trimmed(logs[rng.integers(0, len(logs), (RESAMPLES, len(logs)))])
        distances = np.abs(centres - centre) / np.maximum(errors, 1e-9 * error)
        quantile = float(np.quantile(distances, confidence))
    spread = quantile * float(error) * _correlation_factor(logs)
    return Ratio(*(math.exp(float(centre) + part) for part in (0.0, -spread, spread)))


def _trimmed(logs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The trimmed mean and its standard error, along the last axis."""
    n = logs.shape[-1]
    cut = int(TRIM * n)
    kept = n - 2 * cut
    ordered = np.sort(logs, axis=-1)
    inner = ordered[..., cut : n - cut]
    winsorised = np.clip(ordered, inner[..., :1], inner[..., -1:])
    squares = ((winsorised - winsorised.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    return inner.mean(axis=-1), np.sqrt(squares / (kept * (kept - 1)))


def _correlation_factor(logs: NDArray[np.float64]) -> float:
    """By how much the correlation of neighbours widens the error of a mean (first-order autoregression)."""
    median = np.median(logs)
    scale = 1.4826 * float(np.median(np.abs(logs - median)))
    inner = np.clip(logs, median - 2 * scale, median + 2 * scale)
    inner = inner - inner.mean()
    total = float(inner @ inner)
    # Estimated from n rounds, a correlation r comes out (1 + 4 r) / n too low (Kendall 1954): of 0.2, about 2 / n.
    found = float(inner[1:] @ inner[:-1]) / total + 2 / len(logs) if total > 0 else 0.0
    correlation = min(max(found, LEAST_CORRELATION), MOST_CORRELATION)
    return math.sqrt((1 + correlation) / (1 - correlation))


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927); honest near 0 and 1, where the textbook one is not.

    With few on one side, Wilson's bound there is too near, and holds the truth in 84 of 100 at worst: Poisson's
    takes its place (Brown, Cai and DasGupta 2001). `benchmarks/gate.py` shows the coverage.
    """
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # None and all are bounds themselves: rounding must not put 1 outside of the interval.
    low = (centre - spread) / scale if successes > 0 else 0.0
    high = (centre + spread) / scale if successes < n else 1.0
    return max(0.0, min(low, _least(successes, z) / n)), min(1.0, max(high, 1 - _least(n - successes, z) / n))


def _least(count: float, z: float) -> float:
    """The mean with which Poisson's distribution reaches a count of 1 to FEW no more often than `z` allows to miss.

    Any other count is returned as it is.
    """
    k = round(count)
    if not 0 < k <= FEW:
        return count
    tail = 2 * statistics.NormalDist().cdf(-z)
    low, high = 0.0, float(k)
    while high - low > 1e-9:
        mean = (low + high) / 2
        below = math.exp(-mean) * sum(mean**i / math.factorial(i) for i in range(k))
        low, high = (mean, high) if 1 - below < tail else (low, mean)
    return low


def normal(confidence: float) -> float:
    """Two-sided quantile of the normal distribution."""
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)


def student(freedom: int, confidence: float) -> float:
    """Two-sided quantile of Student's t; at 95 % to 0.1 %, at 99 % to 0.8 %, better with more freedom.

    Exact for one and two degrees of freedom, else an expansion about the normal quantile (Abramowitz and
    Stegun, 26.7.5).
    """
    if freedom == 1:
        return math.tan(confidence * math.pi / 2)  # Cauchy's distribution
    if freedom == 2:
        return confidence * math.sqrt(2 / (1 - confidence**2))
    z = normal(confidence)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


def t95(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t."""
    return student(freedom, 0.95)


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


def paired_difference(
    first_right: Sequence[bool], second_right: Sequence[bool], confidence: float = 0.95
) -> PairedDifference:
    """Exact McNemar test, and Tango's score interval."""
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first.shape != second.shape or not len(first):
        raise ValueError(f"need two equally long, non-empty answers, got {first.shape} and {second.shape}")
    n = len(first)
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    return PairedDifference(
        drop=(lost - won) / n,
        interval=score_interval(lost, won, n, normal(confidence)),
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
