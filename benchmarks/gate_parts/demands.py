"""What the intervals that optkit uses must keep, and where they come nearest to not keeping it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gate_parts.agreement import Share
from gate_parts.drop import FEW_FLIPS, SHIPPED, WANTED, Cell
from gate_parts.latency import Quantile, Rounds

MOST_WRONG = 0.05
LEAST = WANTED[0]


@dataclass(frozen=True)
class Demand:
    """A sentence, whether it is true, and the cell that is nearest to the bound or farthest beyond it."""

    text: str
    met: bool
    worst: str


def demands(
    drops: Sequence[Cell],
    shares: Sequence[Share],
    ratios: Sequence[Rounds],
    quantiles: Sequence[Quantile],
    ratio_draws: int,
) -> list[Demand]:
    """Of all that was simulated."""
    return [
        *_of_drops(drops),
        *_of_agreement(shares),
        *_of_ratios(ratios, ratio_draws),
        _of_quantiles(quantiles),
    ]


def _of_drops(cells: Sequence[Cell]) -> list[Demand]:
    own = [cell for cell in cells if cell.method == SHIPPED]
    enough = [cell for cell in own if cell.expected_flips >= FEW_FLIPS]
    centre = sum(WANTED) / 2
    farthest = max(enough, key=lambda cell: abs(cell.coverage - centre))
    lowest = min(own, key=lambda cell: cell.coverage)
    wrong = max(own, key=lambda cell: cell.wrong_pass)
    return [
        Demand(
            f"drop: coverage 93 to 97 % at every truth of the grid with {FEW_FLIPS} flips or more",
            WANTED[0] <= farthest.coverage <= WANTED[1],
            f"{100 * farthest.coverage:.1f} %: {_truth(farthest)}",
        ),
        Demand(
            "drop: coverage at least 93 % at every truth of the grid",
            lowest.coverage >= LEAST,
            f"{100 * lowest.coverage:.1f} %: {_truth(lowest)}",
        ),
        Demand(
            "drop: wrong pass at most 5 % at every truth of the grid",
            wrong.wrong_pass <= MOST_WRONG,
            f"{100 * wrong.wrong_pass:.1f} %: {_truth(wrong)}",
        ),
    ]


def _truth(cell: Cell) -> str:
    return f"{cell.images:,} images, {100 * cell.flips:g} % flips, drop {100 * cell.drop:g}"


def _of_agreement(shares: Sequence[Share]) -> list[Demand]:
    lowest = min(shares, key=lambda one: one.coverage)
    wrong = max(shares, key=lambda one: one.wrong_pass)
    return [
        Demand(
            "agreement: coverage at least 93 % at every truth of the grid",
            lowest.coverage >= LEAST,
            f"{100 * lowest.coverage:.1f} %: {lowest.images:,} images, {100 * lowest.agreement:g} %",
        ),
        Demand(
            "agreement: wrong pass at most 5 % at every truth of the grid",
            wrong.wrong_pass <= MOST_WRONG,
            f"{100 * wrong.wrong_pass:.1f} %: {wrong.images:,} images, {100 * wrong.agreement:g} %",
        ),
    ]


def _of_ratios(ratios: Sequence[Rounds], draws: int) -> list[Demand]:
    own = [one for one in ratios if one.method == "paired_ratio"]
    mean = float(np.mean([one.wrong for one in own]))
    most = max(own, key=lambda one: one.wrong)
    where = f"{most.rounds} rounds, {most.noise.replace('_', ' ')}"
    return [
        Demand(
            "ratio: faster or slower than itself in at most 5 %, on average over noises and rounds",
            mean <= MOST_WRONG,
            f"{100 * mean:.1f} % on average",
        ),
        Demand(
            "ratio: coverage at least 93 %, within the error of the draws, with every noise",
            _is_kept(1 - most.wrong, draws),
            f"{100 * (1 - most.wrong):.1f} %: {where}",
        ),
    ]


def _of_quantiles(quantiles: Sequence[Quantile]) -> Demand:
    """More than 97 % is no wrong verdict: order statistics cannot be chosen more finely than the sample has values."""
    lowest = min((one for one in quantiles if one.coverage is not None), key=lambda one: one.coverage or 0)
    rounds = "rounds differ" if lowest.rounds_differ else "rounds alike"
    return Demand(
        "percentiles: coverage at least 93 %, within the error of the draws",
        _is_kept(lowest.coverage or 0, lowest.draws),
        f"{100 * (lowest.coverage or 0):.1f} %: {lowest.percentile} of {lowest.calls:,} calls, {rounds}",
    )


def _is_kept(coverage: float, draws: int) -> bool:
    """Whether as few hits are within two standard errors of 93 %."""
    return coverage + 2 * math.sqrt(LEAST * (1 - LEAST) / draws) >= LEAST
