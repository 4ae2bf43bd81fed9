"""What the gate's intervals promise, on simulated data whose truth is known.

    python benchmarks/gate.py

Accuracy: pairs of answers over a grid of images, share of changed answers (flips) and true drop. Each interval should
hold the truth in 93 to 97 of 100 draws, and a gate whose limit is the true drop should pass in at most 5: any larger
drop passes more rarely. Where fewer than five flips are expected, few outcomes are possible, and no interval can keep
a nominal coverage: these cells are counted apart. Latency: medians of rounds of a model against itself, with noise
that is plain, correlated, heavy-tailed, disturbed, or all of it; "faster" or "slower" should be said in at most 5.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from optkit.core.score import score_interval
from optkit.measure.statistics import (
    normal,
    paired_gain,
    paired_ratio,
    percentiles,
    wilson,
)
from optkit.measure.verdict import judge

Floats = NDArray[np.float64]
Interval = tuple[float, float]
CONFIDENCE = 0.95
Z = normal(CONFIDENCE)
WANTED = (0.93, 0.97)
MOST_WRONG = 0.05
FEW_FLIPS = 5
MOST_ENUMERATED, NEGLIGIBLE = 10, 1e-7  # expected flips; probability of an outcome
TOP1 = 0.8  # of the baseline; only Newcombe's interval depends on it

IMAGES = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
FLIPS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.10)  # share of images whose answer is right in one of the two only
DROPS = (-0.01, -0.005, 0.0, 0.005, 0.01, 0.02, 0.03)
ROUNDS = (6, 10, 15, 20, 30, 60)
TINY = 1e-9  # far less than one image
LABELS = ("p50", "p90", "p99")
NOISE = 0.03  # spread of a round's log-ratio


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
    """How often the interval of a percentile held the truth, where it was not refused."""

    percentile: str
    calls: int
    rounds_differ: bool
    coverage: float | None
    refused: float


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

    def calls(per_round: int, differ: bool) -> Floats:
        times = 0.1 * rng.standard_exponential((40, per_round))
        return np.exp(times + 0.1 * differ * rng.standard_normal((40, 1))).ravel()

    found = []
    for differ in (False, True):
        truth = np.concatenate([calls(1000, differ) for _ in range(200)])
        for per_round in (20, 100):
            samples = [calls(per_round, differ) for _ in range(draws)]
            rounds = [per_round] * 40
            labels = {
                label: [percentiles(one.tolist(), rounds).intervals.get(label) for one in samples]
                for label in LABELS
            }
            for label, intervals in labels.items():
                value = np.percentile(truth, float(label[1:]))
                given = [one for one in intervals if one]
                hits = float(np.mean([low <= value <= high for low, high in given])) if given else None
                found.append(Quantile(label, 40 * per_round, differ, hits, 1 - len(given) / draws))
    return found


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


def show_drop(cells: Sequence[Cell], console: Console) -> None:
    """A line for each method and number of flips."""
    columns = (
        "interval",
        "truths",
        "cells",
        "within 93–97 %",
        "below",
        "above",
        "coverage",
        "wrong pass: mean, most",
        "width, points",
    )
    table = Table(*columns, title="drop of top-1: 95 % intervals, and gates whose limit is the true drop")
    for method in DROP_METHODS:
        for name, group in summarise(cells, method).items():
            table.add_row(
                method,
                name,
                *(f"{group[key]:.0f}" for key in ("cells", "within", "below", "above")),
                f"{100 * group['lowest']:.1f}–{100 * group['highest']:.1f} %",
                f"{100 * group['wrong_pass_mean']:.1f} %, {100 * group['wrong_pass_most']:.1f} %",
                f"{group['points_wide']:.2f}",
            )
    console.print(table)


def show_ratio(found: Sequence[Rounds], console: Console) -> None:
    """A column for each kind of noise."""
    table = Table(
        "interval", "rounds", *NOISES, title="a model against itself: % called faster or slower (width, %)"
    )
    for method in RATIO_METHODS:
        for n in dict.fromkeys(one.rounds for one in found):
            own = [one for one in found if (one.method, one.rounds) == (method, n)]
            table.add_row(method, str(n), *(f"{100 * one.wrong:.1f} ({100 * one.width:.1f})" for one in own))
    console.print(table)


def show_percentiles(found: Sequence[Quantile], console: Console) -> None:
    """A line for each percentile."""
    table = Table(
        "percentile",
        "calls",
        "rounds",
        "coverage",
        "refused",
        title="95 % intervals of percentiles, 40 rounds",
    )
    for one in found:
        coverage = "–" if one.coverage is None else f"{100 * one.coverage:.1f} %"
        rounds = "differ" if one.rounds_differ else "alike"
        table.add_row(one.percentile, str(one.calls), rounds, coverage, f"{100 * one.refused:.0f} %")
    console.print(table)


def demands(cells: Sequence[Cell], ratios: Sequence[Rounds]) -> dict[str, bool]:
    """What the intervals that optkit uses must keep."""
    enough = summarise(cells, SHIPPED)[f"{FEW_FLIPS} flips or more"]
    own = [cell for cell in cells if cell.method == SHIPPED]
    wrong = [one.wrong for one in ratios if one.method == "paired_ratio"]
    return {
        f"coverage of the drop is 93-97 % at every truth with {FEW_FLIPS} flips or more": enough["within"]
        == enough["cells"],
        "coverage of the drop is never below 93 %": all(cell.coverage >= WANTED[0] for cell in own),
        "wrong pass at most 5 % at every truth": all(cell.wrong_pass <= MOST_WRONG for cell in own),
        "faster or slower than itself in at most 5 %, on average over noises and rounds": float(
            np.mean(wrong)
        )
        <= MOST_WRONG,
    }


def main() -> None:
    """Simulate, show and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--draws", type=int, default=10_000, help="of each truth; a tenth of it of each noise"
    )
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES, help="sizes of the test set")
    parser.add_argument("--rounds", type=int, nargs="+", default=ROUNDS, help="of two models side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gate.json")
    args = parser.parse_args()
    console = Console(width=160)
    cells = simulate_drop(args.images, FLIPS, DROPS, args.draws, args.seed)
    show_drop(cells, console)
    ratios = simulate_ratio(args.rounds, args.draws // 10, args.seed)
    show_ratio(ratios, console)
    quantiles = simulate_percentiles(args.draws // 10, args.seed)
    show_percentiles(quantiles, console)
    met = demands(cells, ratios)
    for text, is_met in met.items():
        console.print(f"{'met' if is_met else 'NOT MET'}: {text}", highlight=False)
    result = {
        "options": {"draws": args.draws, "images": list(args.images), "seed": args.seed},
        "demands": met,
        "drop": {
            "summary": {method: summarise(cells, method) for method in DROP_METHODS},
            "cells": [asdict(cell) for cell in cells if cell.method == SHIPPED],
        },
        "ratio": [asdict(one) for one in ratios],
        "percentiles": [asdict(one) for one in quantiles],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
