"""What calibrators work on: exact extremes and a streaming histogram of every activation.

A calibrator module has

* `HISTOGRAM`: whether it needs the histogram (without it, calibration is faster),
* `find_range(observed, grid) -> (low, high)`: the values that the ends of the INT8 grid stand for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 8192  # over −limit … limit: at least 2048 of them between 0 and the largest magnitude
SMALLEST = (
    1e-30  # what is smaller is zero: float32 could not hold the factor that would spread it over the bins
)


class Histogram:
    """Counts over −limit … limit, of fixed size however much it sees.

    `limit` is a power of two and grows by merging pairs of bins, so the result does not depend on the order
    or the grouping of the values.
    """

    def __init__(self) -> None:
        self.limit = 0.0
        self.counts = np.zeros(BINS, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count finite values."""
        largest = float(np.abs(values).max(initial=0.0))
        if largest > SMALLEST:
            self._grow(2.0 ** (math.floor(math.log2(largest)) + 1))
        bins = np.floor(values * np.float32(BINS / 2 / (self.limit or 1.0)))  # exact: powers of two
        self.counts += np.bincount(bins.astype(np.int64) + BINS // 2, minlength=BINS)

    def _grow(self, limit: float) -> None:
        if self.limit == 0:  # only zeros so far; they lie in the middle for every limit
            self.limit = limit
        while self.limit < limit:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.zeros(BINS, np.int64)
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = merged
            self.limit *= 2

    @property
    def centers(self) -> NDArray[np.float64]:
        """The value in the middle of every bin."""
        return (np.arange(BINS) + 0.5 - BINS / 2) * (2 * self.limit / BINS)

    def magnitudes(self) -> NDArray[np.int64]:
        """Counts of |value| over 0 … limit."""
        return self.counts[BINS // 2 :] + self.counts[BINS // 2 - 1 :: -1]


@dataclass
class Observed:
    """All that calibration keeps of one activation: `low` and `high` are exact, the histogram is sampled."""

    low: float = 0.0
    high: float = 0.0
    histogram: Histogram = field(default_factory=Histogram)

    @property
    def magnitude(self) -> float:
        return max(-self.low, self.high)

    def cut(self, threshold: float) -> tuple[float, float]:
        """The observed range without what lies beyond ±threshold."""
        return max(self.low, -threshold), min(self.high, threshold)
