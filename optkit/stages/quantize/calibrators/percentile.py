"""The range that holds all but one value in 100,000: outliers are clipped."""

from __future__ import annotations

import numpy as np

from optkit.graph.qdq import Grid
from optkit.stages.quantize.calibrators.base import Observed

HISTOGRAM = True
OUTSIDE = 1e-5  # 99.999 %: at 99.9 % networks with few outliers lose accuracy


def find_range(observed: Observed, grid: Grid) -> tuple[float, float]:
    """Percentile of the magnitude (symmetric), or of both tails, half each (asymmetric)."""
    histogram = observed.histogram
    if grid.symmetric:
        counts = histogram.magnitudes()
        edges = np.linspace(0, histogram.limit, len(counts) + 1)[1:]
        return observed.cut(float(edges[_position(counts, 1 - OUTSIDE)]))
    edges = np.linspace(-histogram.limit, histogram.limit, len(histogram.counts) + 1)
    low = float(edges[_position(histogram.counts, OUTSIDE / 2)])
    high = float(edges[_position(histogram.counts, 1 - OUTSIDE / 2) + 1])
    return max(observed.low, min(low, 0.0)), min(observed.high, max(high, 0.0))


def _position(counts: np.ndarray, share: float) -> int:
    """The bin up to which `share` of the values lies."""
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
