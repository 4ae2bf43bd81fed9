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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from gate_parts.drop import DROP_METHODS, FEW_FLIPS, SHIPPED, WANTED, Cell, simulate_drop, summarise
from gate_parts.latency import Rounds, simulate_percentiles, simulate_ratio
from gate_parts.tables import show_drop, show_percentiles, show_ratio
from rich.console import Console

MOST_WRONG = 0.05
IMAGES = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
FLIPS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.10)  # share of images whose answer is right in one of the two only
DROPS = (-0.01, -0.005, 0.0, 0.005, 0.01, 0.02, 0.03)
ROUNDS = (6, 10, 15, 20, 30, 60)


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
