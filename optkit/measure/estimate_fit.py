"""A sum of times, fitted to published throughputs, and how wrong it is on families of networks that it never saw.

The time of an image is Σ cost · amount over terms (MACs of each kind of product, bytes of each kind of traffic,
operations started and weights read per batch), with every cost above zero. A cost is that of its group (arithmetic,
memory, start, weights) times a factor of its own, and a fit pays for factors other than one: what the training
networks do not tell about a kind of operation stays as dear as its like. Residuals are logarithms, and large ones
count linearly (Huber), because some published rows are off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optkit.measure.estimate_data import Array, Measured, Networks
from optkit.measure.estimate_ops import PRODUCTS
from optkit.measure.estimate_setups import Setup

STIFFNESS = (0.3, 1.0, 3.0)  # candidates for what a factor other than one costs
HUBER = 0.15  # of the logarithm: rows more than about 15 % off count linearly
LOOSENESS = 0.01  # the same for the cost of a group, so that one without effect stays finite
STEPS, CLOSE = 100, 1e-6  # iterations at most, and the relative gain at which they end
ARITHMETIC, MEMORY, START, WEIGHTS = "arithmetic", "memory", "start", "weights"
REDUNDANT = ("depthwise_macs", "depthwise_out")  # sums of others


@dataclass(frozen=True)
class Terms:
    """Names of the terms and the group of each."""

    names: tuple[str, ...]
    groups: tuple[str, ...]

    @classmethod
    def of(cls, features: tuple[str, ...], setup: Setup) -> Terms:
        """The terms that time a network, with the traffic that is left where it is compiled."""
        chosen = [
            (name, group)
            for name in features
            if (group := _group(name, setup.compiled))
            and (setup.layout == "nhwc" or not name.startswith("unaligned"))
        ]
        names, groups = zip(*chosen, strict=True)
        return cls(names, groups)

    def amounts(self, networks: Networks, batch: NDArray[np.int64]) -> Array:
        """(networks, terms): how much of each term one image has."""
        columns = [networks.column(name) for name in self.names]
        per_batch = np.array([group in (START, WEIGHTS) for group in self.groups])
        return np.where(per_batch, np.stack(columns, 1) / batch[:, None], np.stack(columns, 1))


def _group(name: str, compiled: bool) -> str | None:
    """The group of a term; None for a feature that is none."""
    if name == ("fused/kernels" if compiled else "launches"):
        return START
    if name == WEIGHTS:
        return WEIGHTS
    if name in ("macs", "activations", "params", "launches", "fused/kernels", *REDUNDANT):
        return None
    if name.endswith(("_macs", "_tiled", "_excess")):
        return ARITHMETIC
    is_product = name.startswith((*PRODUCTS, "unaligned"))
    return MEMORY if is_product or name.startswith("fused/") == compiled else None


def fit(amounts: Array, groups: tuple[str, ...], ms: Array, stiffness: float) -> Array:
    """Cost of each term in ms, by Levenberg–Marquardt on the logarithms."""
    kinds = sorted(set(groups))
    in_group = np.array([[group == kind for kind in kinds] for group in groups], float)
    penalty = np.r_[np.full(len(kinds), LOOSENESS), np.full(len(groups), stiffness)]
    totals = np.maximum(amounts @ in_group, 1e-30)
    start = np.log(np.median(ms[:, None] / totals, axis=0) / len(kinds))
    amounts = amounts * np.exp(in_group @ start)

    def loss_at(logs: Array) -> tuple[float, Array, Array]:
        """The loss, the residuals, and the times of all terms."""
        times = amounts * np.exp(in_group @ logs[: len(kinds)] + logs[len(kinds) :])
        residuals = np.log(times.sum(1) / ms)
        off = np.abs(residuals)
        huber = np.where(off < HUBER, off**2 / 2, HUBER * (off - HUBER / 2))
        return float(huber.sum() + penalty @ logs**2 / 2), residuals, times

    logs, damping = np.zeros(len(penalty)), 1.0
    loss, residuals, times = loss_at(logs)
    for _ in range(STEPS):
        shares = times / times.sum(1, keepdims=True)
        jacobian = np.hstack([shares @ in_group, shares])
        weighted = jacobian * np.minimum(1, HUBER / np.maximum(np.abs(residuals), 1e-9))[:, None]
        curvature = weighted.T @ jacobian + np.diag(penalty + damping)
        step = np.linalg.solve(curvature, -(weighted.T @ residuals + penalty * logs))
        tried = loss_at(logs + step)
        if tried[0] > loss:
            damping *= 4
            continue
        is_close = loss - tried[0] < CLOSE * loss
        logs, damping = logs + step, damping / 4
        loss, residuals, times = tried
        if is_close:
            break
    costs: Array = np.exp(in_group @ (start + logs[: len(kinds)]) + logs[len(kinds) :])
    return costs


@dataclass(frozen=True)
class HeldOut:
    """Logarithms of estimate over measurement of every row, made from rows of other families only.

    `by_stiffness` is (candidates, rows); `residuals` takes for each family the candidate that does best on the
    others, so that a family's own error chooses nothing.
    """

    by_stiffness: Array
    residuals: Array


def held_out(rows: Measured, setup: Setup) -> HeldOut:
    """Leave each family out in turn."""
    terms = Terms.of(rows.networks.features, setup)
    amounts = terms.amounts(rows.networks, rows.batch)
    families = rows.networks.families
    found = np.empty((len(STIFFNESS), len(rows.ms)))
    for family in np.unique(families):
        out = families == family
        for place, stiffness in enumerate(STIFFNESS):
            costs = fit(amounts[~out], terms.groups, rows.ms[~out], stiffness)
            found[place, out] = np.log(amounts[out] @ costs / rows.ms[out])
    residuals = np.empty(len(rows.ms))
    for family in np.unique(families):
        out = families == family
        residuals[out] = found[_best(found[:, ~out]), out]
    return HeldOut(found, residuals)


def _best(residuals: Array) -> int:
    """By the time per image: by images per second the few networks estimated as far too fast would decide alone."""
    return int(relative(-residuals).mean(1).argmin())


def best_stiffness(errors: HeldOut) -> float:
    """The candidate that does best on held-out families, for the fit to all rows."""
    return STIFFNESS[_best(errors.by_stiffness)]


def relative(residuals: Array) -> Array:
    """|estimate − measured| / measured of the images per second; residuals are log(estimated / measured time)."""
    return np.abs(np.expm1(-residuals))
