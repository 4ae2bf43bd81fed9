"""What the gate's intervals promise, on simulated data whose truth is known.

    python benchmarks/gate.py

Accuracy: pairs of answers over a grid of images, share of changed answers (flips) and true drop. Each interval should
hold the truth in 93 to 97 of 100 draws, and a gate whose limit is the true drop should pass in at most 5: any larger
drop passes more rarely. Where fewer than five flips are expected, few outcomes are possible, and no interval can keep
a nominal coverage: these cells are counted apart. Agreement: the interval of a share of the images, at every outcome
there can be. Latency: medians of rounds of a model against itself, with noise that is plain, correlated, heavy-tailed,
disturbed, or all of it; "faster" or "slower" should be said in at most 5. Percentiles: of calls with a long tail, in
rounds that are alike or differ; above 97 of 100 is no wrong verdict there, as order statistics go by whole samples.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from gate_parts.agreement import exact_agreement
from gate_parts.demands import demands
from gate_parts.drop import DROP_METHODS, SHIPPED, simulate_drop, summarise
from gate_parts.latency import simulate_percentiles, simulate_ratio
from gate_parts.tables import show_agreement, show_demands, show_drop, show_percentiles, show_ratio
from rich.console import Console

IMAGES = (200, 500, 1000, 2000, 5000, 10_000, 20_000)
FLIPS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.10)  # share of images whose answer is right in one of the two only
DROPS = (-0.01, -0.005, 0.0, 0.005, 0.01, 0.02, 0.03)
AGREEMENTS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
ROUNDS = (6, 10, 15, 20, 30, 60)


def main() -> None:
    """Simulate, show and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=10_000,
        help="of each truth; a tenth of it of each noise, 4 tenths of calls",
    )
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES, help="sizes of the test set")
    parser.add_argument("--rounds", type=int, nargs="+", default=ROUNDS, help="of two models side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gate.json")
    args = parser.parse_args()
    console = Console(width=160)
    cells = simulate_drop(args.images, FLIPS, DROPS, args.draws, args.seed)
    show_drop(cells, console)
    shares = exact_agreement(args.images, AGREEMENTS)
    show_agreement(shares, console)
    ratios = simulate_ratio(args.rounds, args.draws // 10, args.seed)
    show_ratio(ratios, console)
    quantiles = simulate_percentiles(args.draws * 4 // 10, args.seed)
    show_percentiles(quantiles, console)
    asked = demands(cells, shares, ratios, quantiles, args.draws // 10)
    show_demands(asked, console)
    result = {
        "options": {"draws": args.draws, "images": list(args.images), "seed": args.seed},
        "demands": {one.text: {"met": one.met, "worst": one.worst} for one in asked},
        "drop": {
            "summary": {method: summarise(cells, method) for method in DROP_METHODS},
            "cells": [asdict(cell) for cell in cells if cell.method == SHIPPED],
        },
        "agreement": [asdict(one) for one in shares],
        "ratio": [asdict(one) for one in ratios],
        "percentiles": [asdict(one) for one in quantiles],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
