"""What two measurements must share before their figures are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optkit.report.schema import Row, Step

HARDWARE = ("cpu", "cores", "cpu_features", "gpus")  # what of a machine decides how fast it is


@dataclass(frozen=True)
class Conditions:
    """Latencies compare on the same hardware with the same packages, accuracies on images of the same data."""

    hardware: tuple[Any, ...]
    packages: Mapping[str, str]
    images: Mapping[str, Any]

    def latencies_differ_by(self, other: Conditions) -> str:
        """Why the latencies of the two do not compare, empty where they do."""
        if self.hardware != other.hardware:
            return "another machine"
        return "other packages" if self.packages != other.packages else ""


def conditions(row: Row, steps: Mapping[str, Step]) -> Conditions:
    """Those of the steps, by name, that timed the row and that measured its top-1."""
    timed = steps[row.bench or row.name].manifest
    return Conditions(
        hardware=tuple(timed.machine.get(name) for name in HARDWARE),
        packages=timed.packages,
        images=images_of(steps[row.top1_step or row.bench or row.name]),
    )


def images_of(step: Step) -> dict[str, Any]:
    """What of a step's config decides on which images it measures."""
    data = step.manifest.config.get("data")
    return (
        {name: data.get(name) for name in ("path", "val", "val_fraction")} if isinstance(data, dict) else {}
    )


def with_groups(rows: list[Row], found: list[Conditions]) -> list[Row]:
    """Rows numbered by their conditions, one of `found` for each row: only rows of one group share a front."""
    kinds: list[Conditions] = []
    for one in found:
        if one not in kinds:
            kinds.append(one)
    return [row.model_copy(update={"group": kinds.index(one)}) for row, one in zip(rows, found, strict=True)]
