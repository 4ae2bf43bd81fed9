"""Intervals of a drop of top-1 on simulated pairs of answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optkit.core.score import score_interval
from optkit.measure.statistics import normal, wilson
from optkit.measure.verdict import judge

Floats = NDArray[np.float64]
Interval = tuple[float, float]
CONFIDENCE = 0.95
Z = normal(CONFIDENCE)
WANTED = (0.93, 0.97)
FEW_FLIPS = 5
MOST_ENUMERATED, NEGLIGIBLE = 10, 1e-7  # expected flips; probability of an outcome
TOP1 = 0.8  # of the baseline; only Newcombe's interval depends on it
TINY = 1e-9  # far less than one image


@dataclass(frozen=True)
class Cell:
    """A method at one truth: how often its interval held it, and how often a gate wrongly passed or failed."""

    method: str
    images: int
    flips: float
    drop: float
    coverage: float
    wrong_pass: float
    wrong_fail: float
    width: float

    @property
    def expected_flips(self) -> float:
        return self.images * self.flips


def wald(lost: int, won: int, n: int) -> Interval:
    """The textbook's."""
    centre = (lost - won) / n
    spread = Z * math.sqrt(max(0.0, (lost + won) / n - centre**2) / n)
    return centre - spread, centre + spread


def bonett_price(lost: int, won: int, n: int) -> Interval:
    """Adjusted Wald (Bonett and Price 2012): one image more on either side."""
    return wald(lost + 1, won + 1, n + 2)


def newcombe(lost: int, won: int, n: int) -> Interval:
    """Square-and-add of two Wilson intervals and their correlation (Newcombe 1998, method 10)."""
    both = round(TOP1 * (n - lost - won))
    neither = n - lost - won - both
    first, second = both + lost, both + won
    (low_1, high_1), (low_2, high_2) = (wilson(count, n, Z) for count in (first, second))
    share_1, share_2 = first / n, second / n
    odds = both * neither - lost * won
    corrected = max(odds - n / 2, 0.0) if odds > 0 else float(odds)
    total = math.sqrt(float(first) * (n - first) * second * (n - second))
    phi = corrected / total if total else 0.0
    down, up = share_1 - low_1, high_1 - share_1
    down_2, up_2 = share_2 - low_2, high_2 - share_2
    return (
        share_1 - share_2 - math.sqrt(max(0.0, down**2 - 2 * phi * down * up_2 + up_2**2)),
        share_1 - share_2 + math.sqrt(max(0.0, up**2 - 2 * phi * up * down_2 + down_2**2)),
    )


DROP_METHODS: dict[str, Callable[[int, int, int], Interval]] = {
    "Tango's score": lambda lost, won, n: score_interval(lost, won, n, Z),
    "Bonett-Price": bonett_price,
    "Newcombe 10": newcombe,
    "Wald": wald,
}
SHIPPED = "Tango's score"


def outcomes(
    rng: np.random.Generator, n: int, shares: tuple[float, float], draws: int
) -> tuple[NDArray[np.int64], Floats]:
    """Numbers of lost and won images (k, 2) and their probabilities: all of them where they are few, else draws."""
    if n * sum(shares) > MOST_ENUMERATED:
        drawn = rng.multinomial(n, [*shares, 1 - sum(shares)], draws)[:, :2]
        found, counts = np.unique(drawn, axis=0, return_counts=True)
        return found, counts / draws
    each = [np.arange(1 + int(n * share + 8 * math.sqrt(n * share) + 8 * (share > 0))) for share in shares]
    lost, won = (axis.ravel() for axis in np.meshgrid(*each, indexing="ij"))
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    logs = factorials[n] - factorials[lost] - factorials[won] - factorials[n - lost - won]
    for count, share in ((lost, shares[0]), (won, shares[1]), (n - lost - won, 1 - sum(shares))):
        logs += count * math.log(share) if share else 0.0
    weights = np.exp(logs)
    kept = weights > NEGLIGIBLE
    return np.stack([lost, won], axis=1)[kept], weights[kept] / weights[kept].sum()


def simulate_drop(
    images: Sequence[int], flips: Sequence[float], drops: Sequence[float], draws: int, seed: int
) -> list[Cell]:
    """Every method on the same outcomes, at every truth that can be."""
    rng = np.random.default_rng(seed)
    cells = []
    truths = [(n, flip, drop) for n in images for flip in flips for drop in drops if abs(drop) <= flip]
    for n, flip, drop in truths:
        found, weights = outcomes(rng, n, ((flip + drop) / 2, (flip - drop) / 2), draws)
        for method, interval in DROP_METHODS.items():
            bounds = np.array([interval(int(lost), int(won), n) for lost, won in found])
            passes, fails = (
                np.array([judge((low, high), limit, at_most=True) == verdict for low, high in bounds])
                # A drop just beyond the limit must not pass, one at the limit must not fail.
                for limit, verdict in ((drop - TINY, "pass"), (drop + TINY, "fail"))
            )
            cells.append(
                Cell(
                    method,
                    n,
                    flip,
                    drop,
                    coverage=float(weights @ (~passes & ~fails)),
                    wrong_pass=float(weights @ passes),
                    wrong_fail=float(weights @ fails),
                    width=float(weights @ (bounds[:, 1] - bounds[:, 0])),
                )
            )
    return cells


def summarise(cells: Sequence[Cell], method: str) -> dict[str, dict[str, float]]:
    """Coverage and wrong passes of a method by how many flips are expected."""
    own = [cell for cell in cells if cell.method == method]
    groups = {
        "no flips": [cell for cell in own if cell.flips == 0],
        f"fewer than {FEW_FLIPS} flips": [cell for cell in own if 0 < cell.expected_flips < FEW_FLIPS],
        f"{FEW_FLIPS} flips or more": [cell for cell in own if cell.expected_flips >= FEW_FLIPS],
    }
    return {name: _group(found) for name, found in groups.items() if found}


def _group(cells: Sequence[Cell]) -> dict[str, float]:
    coverage = np.array([cell.coverage for cell in cells])
    wrong = np.array([cell.wrong_pass for cell in cells])
    return {
        "cells": len(cells),
        "within": int(((coverage >= WANTED[0]) & (coverage <= WANTED[1])).sum()),
        "below": int((coverage < WANTED[0]).sum()),
        "above": int((coverage > WANTED[1]).sum()),
        "lowest": float(coverage.min()),
        "highest": float(coverage.max()),
        "wrong_pass_mean": float(wrong.mean()),
        "wrong_pass_most": float(wrong.max()),
        "points_wide": 100 * float(np.mean([cell.width for cell in cells])),
    }
