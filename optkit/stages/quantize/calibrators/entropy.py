"""The threshold whose quantised distribution loses least information (Kullback–Leibler divergence).

After S. Migacz, "8-bit Inference with TensorRT", GTC 2017: the magnitudes in 2,048 bins; for every candidate
threshold, what lies beyond is added to the last bin (the reference), the rest is spread over the levels of
the grid (the candidate), and the threshold of the smallest divergence wins. Approximate: candidates are
STRIDE bins apart, and the histogram is sampled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optkit.graph.qdq import Grid
from optkit.stages.quantize.calibrators.base import Observed

HISTOGRAM = True
BINS = 2048
STRIDE = 16


def find_range(observed: Observed, grid: Grid) -> tuple[float, float]:
    """The observed range cut at the best threshold."""
    if observed.magnitude == 0:
        return observed.low, observed.high
    width = 2 * observed.magnitude if grid.symmetric else observed.high - observed.low
    levels = round(grid.steps * observed.magnitude / width)
    counts = _rebin(observed)
    candidates = range(levels, BINS + 1, STRIDE)
    best = min(candidates, key=lambda bins: (divergence(counts, bins, levels), -bins))
    # The last candidate means that nothing is to be clipped.
    return observed.cut(
        observed.magnitude * (best + 0.5) / BINS if best != candidates[-1] else observed.magnitude
    )


def _rebin(observed: Observed) -> NDArray[np.float64]:
    """Magnitudes in 2,048 bins over 0 … the largest one; the bin of the zeros is left out.

    Half of all values are exactly 0 after a ReLU and every grid represents them, so they say nothing.
    """
    counts = observed.histogram.magnitudes()
    edges = np.linspace(0, observed.histogram.limit, len(counts) + 1)
    cumulated = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    wanted = np.linspace(0, observed.magnitude, BINS + 1)
    rebinned = np.diff(np.interp(wanted, edges, cumulated))
    rebinned[0] = rebinned[1]
    return rebinned


def divergence(counts: NDArray[np.float64], bins: int, levels: int) -> float:
    """KL divergence when the first `bins` bins are kept and represented by `levels` values."""
    kept = counts[:bins]
    reference = kept.copy()
    reference[-1] += counts[bins:].sum()
    starts = np.arange(levels) * bins // levels
    filled = kept > 0
    sums = np.add.reduceat(kept, starts)
    holders = np.add.reduceat(filled.astype(np.float64), starts)
    lengths = np.diff(np.append(starts, bins))
    candidate = np.repeat(sums / np.maximum(holders, 1), lengths) * filled
    present = reference > 0
    p, q = reference[present] / reference.sum(), candidate[present] / max(candidate.sum(), 1e-12)
    return float(np.sum(p * np.log(p / np.maximum(q, 1e-12))))
