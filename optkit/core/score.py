"""The score interval of a paired difference of proportions (Tango, Statistics in Medicine 17, 1998, 891–908)."""

from __future__ import annotations

import math
from collections.abc import Callable

STEPS = 50  # halvings of [-1, 1]: far below one image


def score_interval(lost: float, won: float, n: float, z: float) -> tuple[float, float]:
    """Differences (lost − won) / n that the score test at quantile `z` does not reject.

    Of n pairs `lost` changed one way and `won` the other. Counts may be fractions, so that one can ask what k times
    as many pairs would say. Of the intervals compared in `benchmarks/gate.py` it keeps its coverage on the fewest
    changes.
    """
    difference = (lost - won) / n
    low = _root(lambda value: _score(lost, won, n, value) > z, -1.0, difference)
    high = _root(lambda value: _score(lost, won, n, value) > -z, difference, 1.0)
    return low, high


def _score(lost: float, won: float, n: float, difference: float) -> float:
    """How many standard errors the counts lie above what a true `difference` makes of them; falls with it."""
    excess = lost - won - n * difference
    # The likeliest share of changes in the one direction (Tango's q21), given the difference: a quadratic's root.
    linear = (2 * n - lost + won) * difference - lost - won
    constant = -won * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8 * n * constant))
    share = max((root - linear) / (4 * n), 0.0, -difference)
    variance = n * (2 * share + difference * (1 - difference))
    if variance <= 0:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def _root(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """Where `is_below` changes from True to False."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
