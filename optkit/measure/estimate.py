"""Estimates of throughput on GPUs that are not here, with the error that they had on networks they never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from optkit.measure.estimate_data import Networks, measured
from optkit.measure.estimate_fit import HeldOut, Terms, best_stiffness, fit, held_out, relative
from optkit.measure.estimate_setups import SETUPS, Setup

FITS = "fits.json"
COVERAGE = 0.9  # of the range beside each estimate
# Beyond the calibrated networks by this much, an estimate is extrapolated and its range widened.
MARGIN = 1.5
SHARE = 0.1  # of the time, below which a term is never a reason to warn
WORD = "estimate"


@dataclass(frozen=True)
class Estimate:
    """Throughput at `batch` images: never measured.

    `median_error` and `mape` are those of the images per second, on networks of families that were held out.
    `range_90` is of nine in ten errors on them, and held 87 to 89 of 100 whose family it was not made from either
    (`benchmarks/estimate.py`); twice as wide, in logarithms, where `beyond` says what makes this an extrapolation.
    """

    setup: Setup
    images_per_s: float
    range_90: tuple[float, float]
    median_error: float
    mape: float
    networks: int
    families: int
    batch: int
    beyond: tuple[str, ...]

    def to_json(self, name: str) -> dict[str, Any]:
        """The row of a report."""
        return {
            "name": name,
            "gpu": self.setup.gpu,
            "setup": self.setup.name,
            "layout": self.setup.layout,
            "compiled": self.setup.compiled,
            "torch": self.setup.torch,
            "precision": self.setup.precision,
            "images_per_s": self.images_per_s,
            "ms_per_image": 1000 / self.images_per_s,
            "range_90": list(self.range_90),
            "median_error": self.median_error,
            "mape": self.mape,
            "n_models": self.networks,
            "n_families": self.families,
            "batch": self.batch,
            "beyond": list(self.beyond),
            "word": WORD,
        }


def calibrate(setup: str, errors: HeldOut | None = None) -> dict[str, Any]:
    """Fit a file of throughputs; its errors by leaving families out, None: found here, which takes seconds."""
    rows = measured(setup)
    terms = Terms.of(rows.networks.features, SETUPS[setup])
    amounts = terms.amounts(rows.networks, rows.batch)
    errors = errors or held_out(rows, SETUPS[setup])
    stiffness = best_stiffness(errors)
    costs = fit(amounts, terms.groups, rows.ms, stiffness)
    times = amounts * costs
    off = relative(errors.residuals)
    tail = (1 - COVERAGE) / 2
    return {
        "stiffness": stiffness,
        "batch": rows.usual_batch(),
        "ms": {name: float(cost) for name, cost in zip(terms.names, costs, strict=True)},
        "largest_share": {
            name: float(share)
            for name, share in zip(terms.names, (times / times.sum(1, keepdims=True)).max(0), strict=True)
        },
        "ms_range": [float(rows.ms.min()), float(rows.ms.max())],
        "range_90": np.exp(np.quantile(errors.residuals, [tail, 1 - tail])).tolist(),
        "median_error": float(np.median(off)),
        "mape": float(off.mean()),
        "networks": len(rows.ms),
        "families": len(np.unique(rows.networks.families)),
    }


def stored() -> dict[str, dict[str, Any]]:
    """What `calibrate` found for every setup when the package was made."""
    text = files("optkit.measure").joinpath("estimates", FITS).read_text(encoding="utf-8")
    fits: dict[str, dict[str, Any]] = json.loads(text)
    return fits


def estimate(features: Mapping[str, float], setup: str, unknown: Sequence[str] = ()) -> Estimate:
    """Throughput of a network of these features with the setup, a key of SETUPS.

    `unknown` are kinds of operations of which no calibrated network has any: they are counted as copies.
    """
    found = stored()[setup]
    terms = Terms.of(tuple(found["ms"]), SETUPS[setup])
    one = Networks(
        np.array([""]),
        np.array([0]),
        np.array([""]),
        terms.names,
        np.array([[features.get(name, 0.0) for name in terms.names]]),
    )
    times = terms.amounts(one, np.array([found["batch"]]))[0] * [found["ms"][name] for name in terms.names]
    ms = float(times.sum())
    beyond = _beyond(dict(zip(terms.names, times.tolist(), strict=True)), ms, found)
    beyond += tuple(f"what {kind} computes is not known, and counted as a copy" for kind in unknown)
    widening = 2 if beyond else 1
    low, high = (bound**widening for bound in _ordered(found["range_90"]))
    return Estimate(
        SETUPS[setup],
        1000 / ms,
        (low * 1000 / ms, high * 1000 / ms),
        found["median_error"],
        found["mape"],
        found["networks"],
        found["families"],
        found["batch"],
        beyond,
    )


def _ordered(bounds: list[float]) -> tuple[float, float]:
    """Around 1, so that a range holds its estimate."""
    return min(1.0, bounds[0]), max(1.0, bounds[1])


def _beyond(times: dict[str, float], ms: float, found: dict[str, Any]) -> tuple[str, ...]:
    """In what a network is unlike all that the setup was calibrated on."""
    reasons = []
    low, high = found["ms_range"]
    if not low / MARGIN <= ms <= high * MARGIN:
        reasons.append(f"{ms:.3g} ms per image, calibrated on {low:.3g} to {high:.3g}")
    for name, time in times.items():
        share, largest = time / ms, found["largest_share"][name]
        if share > max(SHARE, MARGIN * largest):
            reasons.append(
                f"{share:.0%} of the time goes into {name!r}, at most {largest:.0%} in calibration"
            )
    return tuple(reasons)
