"""How far the estimates for GPUs are off on families of networks that they never saw.

    python benchmarks/estimate.py
    python benchmarks/estimate.py --collect FOLDER    # of timm's results/benchmark-infer-*.csv

Recomputes everything from the throughputs and features in the package: of every file of throughputs each family is
left out in turn, its networks are estimated from the others, and the errors of the images per second are compared with
a regression on MACs and activations (non-negative least squares on relative errors) of the same split. The stiffness
of the fit is chosen for each family by the errors of the time per image of the other families; `fixed` in the JSON
shows what each candidate gives, so what the choice is worth. What no split undoes: which terms the sum has was decided
while looking at such errors. `coverage` counts the networks within the 90 % range that the other families give.

--collect counts the networks again, on shapes alone (minutes), and writes the package's data. Rows of networks that
timm has no more, or whose parameters are not the row's (networks that were measured after re-parametrisation), are
left out; of several rows of one network and size, the one with the largest batch is kept.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import nnls
from torch import nn

import optkit.measure
from optkit.measure.estimate import COVERAGE, FITS, calibrate, stored
from optkit.measure.estimate_data import ROWS, Measured, Networks, measured, save
from optkit.measure.estimate_fit import STIFFNESS, held_out, relative
from optkit.measure.estimate_ops import features, totals
from optkit.measure.estimate_setups import SETUPS, family_of
from optkit.measure.estimate_torch import module_ops

MEDIAN, MAPE = 0.10, 0.13  # what the estimates must reach
FOLDER = Path(optkit.measure.__file__).parent / "estimates"
Array = NDArray[np.float64]


def baseline_held_out(rows: Measured) -> Array:
    """Logarithms of estimate over measurement from MACs and activations, each family left out in turn."""
    networks = rows.networks
    amounts = np.stack([networks.column("macs"), networks.column("activations"), np.ones(len(rows.ms))], 1)
    scaled = amounts / amounts.max(0)
    residuals = np.empty(len(rows.ms))
    for family in np.unique(networks.families):
        out = networks.families == family
        costs, _ = nnls(scaled[~out] / rows.ms[~out, None], np.ones((~out).sum()))
        residuals[out] = np.log(scaled[out] @ costs / rows.ms[out])
    return residuals


def without_attention(rows: Measured) -> NDArray[np.bool_]:
    """Networks without any product of two activations, and not of transformers' families: convolutional ones."""
    networks = rows.networks
    return (networks.column("attention_macs") == 0) & ~np.isin(
        networks.families, ("vision_transformer", "mlp_mixer")
    )


def summary(residuals: Array) -> dict[str, float]:
    """Median and mean of the relative errors of the images per second, and how many are within 10 %.

    `…_of_time` are those of the time per image; their mean is smaller, as a time that is estimated too short is at
    most 100 % off, and the images per second that follow from it have no bound.
    """
    off, of_time = relative(residuals), relative(-residuals)
    return {
        "median": float(np.median(off)),
        "mape": float(off.mean()),
        "within_10": float((off <= 0.1).mean()),
        "median_of_time": float(np.median(of_time)),
        "mape_of_time": float(of_time.mean()),
    }


def coverage(residuals: Array, families: NDArray[np.str_]) -> float:
    """Share of the rows within the range that the rows of other families give."""
    tail = (1 - COVERAGE) / 2
    inside = 0
    for family in np.unique(families):
        out = families == family
        low, high = np.quantile(residuals[~out], [tail, 1 - tail])
        inside += int(((low <= residuals[out]) & (residuals[out] <= high)).sum())
    return inside / len(residuals)


def result(setup: str) -> dict[str, Any]:
    """Everything that is said of one file."""
    rows = measured(setup)
    errors = held_out(rows, SETUPS[setup])
    plain, base, cnn = errors.residuals, baseline_held_out(rows), without_attention(rows)
    found = summary(plain)
    return {
        "file": setup,
        "setup": SETUPS[setup].name,
        "networks": len(rows.ms),
        "families": len(np.unique(rows.networks.families)),
        "all": found,
        "convolutional": {"networks": int(cnn.sum()), **summary(plain[cnn])},
        "baseline": summary(base),
        # The published baseline is of convolutional networks alone, so it may be fitted to those alone.
        "baseline_convolutional": summary(baseline_held_out(_only(rows, cnn))),
        "fixed": {
            str(stiffness): summary(row)
            for stiffness, row in zip(STIFFNESS, errors.by_stiffness, strict=True)
        },
        "coverage_90": coverage(plain, rows.networks.families),
        "stored_differ_by": largest_change(stored()[setup], calibrate(setup, errors)),
        "holds": found["median"] <= MEDIAN and found["mape"] <= MAPE,
    }


def _only(rows: Measured, chosen: NDArray[np.bool_]) -> Measured:
    places = np.flatnonzero(chosen)
    return Measured(rows.networks.take(places), rows.ms[places], rows.batch[places])


def show(results: list[dict[str, Any]]) -> None:
    """The files as a table."""
    table = Table(
        "throughputs",
        "networks",
        "median",
        "MAPE",
        "≤ 10 %",
        "conv. only",
        "MACs + act.",
        "conv. only",
        "90 % range holds",
        f"≤ {MEDIAN:.0%} and ≤ {MAPE:.0%}",
        title="Error of the images per second on held-out families (conv. only and MACs + activations: median / MAPE)",
    )
    for row in results:
        pairs = (
            f"{row[name]['median']:.1%} / {row[name]['mape']:.1%}" for name in ("convolutional", "baseline")
        )
        ours, base = pairs
        alone = row["baseline_convolutional"]
        table.add_row(
            row["setup"],
            f"{row['networks']} in {row['families']}",
            f"{row['all']['median']:.1%}",
            f"{row['all']['mape']:.1%}",
            f"{row['all']['within_10']:.0%}",
            ours,
            base,
            f"{alone['median']:.1%} / {alone['mape']:.1%}",
            f"{row['coverage_90']:.0%}",
            "yes" if row["holds"] else "no",
        )
    Console(width=170).print(table)


def published(path: Path) -> Iterator[tuple[str, int, float, int, float]]:
    """Name, size, images per second, batch and millions of parameters of the rows of a file."""
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            keys = ("infer_img_size", "infer_samples_per_sec", "infer_batch_size", "param_count")
            if all(row[key] for key in keys):
                size, images, batch, params = (float(row[key]) for key in keys)
                yield row["model"].split(".")[0], int(size), images, int(batch), params


def count(name: str, size: int) -> dict[str, float] | None:
    """Features of timm's network at an image size; None when it cannot be run on shapes alone."""
    for options in ({}, {"img_size": size}):
        try:
            module = _build(name, options)
            ops = module_ops(module, size)
        except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            continue
        macs, activations = totals(ops)
        params = sum(parameter.numel() for parameter in module.parameters())
        return {**features(ops), "macs": macs, "activations": activations, "params": params}
    return None


def _build(name: str, options: dict[str, int]) -> nn.Module:
    try:
        with torch.device("meta"):
            return timm.create_model(name, **options).eval()
    except (NotImplementedError, RuntimeError):  # its initialisation looks at values
        return timm.create_model(name, **options).eval().to("meta")


def collect(folder: Path, out: Path) -> None:
    """Count every network of timm's files, and write the package's data and fits."""
    rows = {setup: list(published(folder / f"benchmark-{setup}.csv")) for setup in SETUPS}
    wanted = sorted({row[:2] for found in rows.values() for row in found if timm.is_model(row[0])})
    counted = {key: found for key in track(wanted, "Counting") if (found := count(*key)) is not None}
    write(counted, rows, out)


def _module_of(name: str) -> str:
    """timm's module that defines a network: `efficientnet`."""
    return timm.models.model_entrypoint(name).__module__.rpartition(".")[2]


def write(
    counted: dict[tuple[str, int], dict[str, float]],
    rows: dict[str, list[tuple[str, int, float, int, float]]],
    out: Path,
) -> None:
    """Store features and throughputs of the networks that are what the rows say."""
    keys = list(counted)
    columns = tuple(sorted({name for found in counted.values() for name in found}))
    networks = Networks(
        np.array([name for name, _ in keys]),
        np.array([size for _, size in keys]),
        np.array([family_of(_module_of(name)) for name, _ in keys]),
        columns,
        np.array([[counted[key].get(name, 0.0) for name in columns] for key in keys]),
    )
    places = {key: place for place, key in enumerate(keys)}
    kept: dict[str, tuple[list[int], list[float], list[int]]] = {}
    for setup, found in rows.items():
        best: dict[int, tuple[float, int]] = {}
        for name, size, images, batch, params in found:
            place = places.get((name, size))
            if place is None or abs(params - counted[name, size]["params"] / 1e6) > 0.01 + 0.02 * params:
                continue
            if place not in best or batch > best[place][1]:
                best[place] = (images, batch)
        kept[setup] = (
            list(best),
            [images for images, _ in best.values()],
            [batch for _, batch in best.values()],
        )
    save(out / ROWS, networks, kept)


def refit(out: Path) -> None:
    """Fit every file anew and store the costs that `optkit estimate` uses."""
    fits = {setup: calibrate(setup) for setup in track(list(SETUPS), "Fitting")}
    (out / FITS).write_text(json.dumps(fits, indent=1) + "\n", encoding="utf-8")


def largest_change(then: dict[str, Any], now: dict[str, Any]) -> float:
    """The largest relative difference of a stored cost or error from what is fitted now."""
    pairs = [(then["ms"][name], cost) for name, cost in now["ms"].items()]
    pairs += [(then[name], now[name]) for name in ("median_error", "mape")]
    return max(abs(stored / today - 1) for stored, today in pairs)


def main() -> None:
    """Measure, show and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collect", type=Path, help="folder of timm's CSV files: write the package's data")
    parser.add_argument("--setups", nargs="+", choices=SETUPS, default=list(SETUPS), metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "estimate.json")
    args = parser.parse_args()
    if args.collect:
        collect(args.collect, FOLDER)
        refit(FOLDER)
    results = [result(setup) for setup in track(args.setups, "Leaving families out")]
    show(results)
    change = max(row["stored_differ_by"] for row in results)
    print(f"stored costs and errors differ from a fit made now by at most {change:.1e}")
    demands = {"median": MEDIAN, "mape": MAPE}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"demands": demands, "files": results}, indent=2)
    args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
