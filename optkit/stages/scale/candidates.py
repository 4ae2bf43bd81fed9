"""Step 1 of compound scaling: α, β and γ from a grid, with φ = 1 (arXiv 1905.11946, page 5)."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import torch

from optkit.core.progress import Reporter
from optkit.measure.cost import module_cost
from optkit.measure.counts import Cost
from optkit.models.build import build
from optkit.models.scaling import Coefficients

TARGET = 2.0  # by what the FLOPs should grow with φ = 1


@dataclass(frozen=True)
class Base:
    """The network that is scaled, at its input size."""

    arch: str
    size: int
    num_classes: int
    cost: Cost

    def row(self) -> dict[str, Any]:
        return {"arch": self.arch, "size": self.size, **self.cost.metrics()}

    def scaled(self, coefficients: Coefficients, phi: float) -> dict[str, Any]:
        """The network at φ with its exact cost, as JSON."""
        arch = coefficients.scaled(self.arch, self.size, phi)
        cost = count(arch.name, self.num_classes, arch.size)
        return {
            "arch": arch.name,
            **asdict(coefficients),
            "growth": coefficients.growth,
            "phi": phi,
            **{name: getattr(arch, name) for name in ("depth", "width", "size")},
            **cost.metrics(),
            "macs_ratio": cost.macs / self.cost.macs,
        }


def make_base(arch: str, size: int, num_classes: int) -> Base:
    """Count the base."""
    return Base(arch, size, num_classes, count(arch, num_classes, size))


def count(arch: str, num_classes: int, size: int) -> Cost:
    """Exact cost of an architecture, without its weights."""
    with torch.device("meta"):
        return module_cost(build(arch, num_classes).eval(), size)


def grid(given: Coefficients, step: float, tolerance: float) -> list[Coefficients]:
    """`given`, and all α, β, γ ≥ 1 in multiples of `step` whose α·β²·γ² is 2 ± `tolerance`."""
    values = [round(1 + index * step, 4) for index in range(int((TARGET + tolerance - 1) / step) + 1)]
    points = (Coefficients(*point) for point in itertools.product(values, repeat=3))
    near = [point for point in points if abs(point.growth - TARGET) <= tolerance]
    return list(dict.fromkeys([given, *near]))


def count_candidates(base: Base, points: list[Coefficients], reporter: Reporter) -> list[dict[str, Any]]:
    """Every point at φ = 1, those with MACs nearest to twice the base's first."""
    rows = []
    with reporter.track("step 1: counting candidates", len(points)) as task:
        for point in points:
            rows.append(base.scaled(point, 1.0))
            task.advance(1, rows[-1]["arch"])
    return sorted(rows, key=lambda row: abs(row["macs_ratio"] - TARGET))


def coefficients_of(row: dict[str, Any]) -> Coefficients:
    """α, β and γ of a candidate."""
    return Coefficients(row["alpha"], row["beta"], row["gamma"])
