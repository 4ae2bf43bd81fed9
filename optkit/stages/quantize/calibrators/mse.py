"""The range of the smallest mean squared error of rounding and clipping.

Approximate: the ends are searched in steps of 1 % of the observed range, one after the other, on a sampled
histogram whose bins stand for their middle value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optkit.graph.qdq import Grid
from optkit.stages.quantize.calibrators.base import Observed

HISTOGRAM = True
SHARES = np.linspace(1.0, 0.3, 71)


def find_range(observed: Observed, grid: Grid) -> tuple[float, float]:
    """Shrink the observed range while the error falls."""
    filled = observed.histogram.counts > 0
    values, counts = observed.histogram.centers[filled], observed.histogram.counts[filled]
    if observed.magnitude == 0:
        return observed.low, observed.high
    if grid.symmetric:
        thresholds = SHARES * observed.magnitude
        errors = [error(values, counts, grid, -limit, limit) for limit in thresholds]
        return observed.cut(float(thresholds[np.argmin(errors)]))
    low, high = observed.low, observed.high
    highs = SHARES * high
    high = float(highs[np.argmin([error(values, counts, grid, low, end) for end in highs])])
    lows = SHARES * low
    low = float(lows[np.argmin([error(values, counts, grid, end, high) for end in lows])])
    return low, high


def error(
    values: NDArray[np.float64], counts: NDArray[np.int64], grid: Grid, low: float, high: float
) -> float:
    """Sum of squared differences between the values and their INT8 representation."""
    scale, zero = grid.scale(low, high)
    codes = np.clip(np.rint(values / scale) + zero, grid.low_code, grid.high_code)
    return float(counts @ np.square((codes - zero) * scale - values))
