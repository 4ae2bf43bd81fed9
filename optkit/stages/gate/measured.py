"""A bench's manifest, read for the gate: its rows, and the samples behind them."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from optkit.core.errors import InputError, first_problem
from optkit.core.types import Artifact, Measurement, Record


class Place(Record):
    """A model in a runtime."""

    model_config = ConfigDict(extra="ignore")

    name: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.name} ({self.runtime})"


class Row(Record):
    """One model in one runtime at one batch size. `agreement_with` is whose answers it agrees with."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    name: str
    key: str
    runtime: str
    batch: int
    computes: bool = True
    size_bytes: int | None = None
    agreement: float | None = None
    agreement_with: Place | None = None
    not_measured: dict[str, str] = Field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} ({self.runtime}, batch {self.batch})"


class Failed(Record):
    """A model whose process died."""

    model_config = ConfigDict(extra="ignore")

    name: str
    runtime: str
    why: str = ""


class Measured(Record):
    """What the gate reads of a bench's details."""

    model_config = ConfigDict(extra="ignore")

    rows: tuple[Row, ...]
    models: dict[str, str] = Field(default_factory=dict)  # what each row's name stands for: a path, or a step
    failed: tuple[Failed, ...] = ()
    interrupted: bool = False

    def crash(self, row: Row) -> str | None:
        """Why its process died; None when it did not."""
        same = (one for one in self.failed if (one.name, one.runtime) == (row.name, row.runtime))
        return next((one.why for one in same), None)


def read_bench(name: str, artifact: Artifact) -> Measured:
    """The measurement in `artifact`; InputError when it is some other result."""
    manifest = artifact.manifest
    if manifest.stage != "bench":
        raise InputError(
            f"{name!r} is not a measurement of `optkit bench`.",
            why=f"It is the result of `optkit {manifest.stage}`.",
            hint="Give models, or the folder of `optkit bench … --out bench/`.",
        )
    try:
        return Measured.model_validate(manifest.details)
    except ValidationError as error:
        raise InputError(
            f"The measurement {name!r} cannot be read.",
            why=first_problem(error),
            hint="It was changed by hand or written by another version; measure again.",
        ) from None


def samples(artifact: Artifact, row: Row, quantity: str) -> Measurement | None:
    """The measurement of `quantity` ("latency_ms", "top1") behind a row; None where there are no samples."""
    wanted: dict[str, Any] = {"model": row.name, "key": row.key, "runtime": row.runtime}
    if quantity == "latency_ms":
        wanted["batch"] = row.batch
    for found in artifact.manifest.measurements:
        if found.name == quantity and found.samples and wanted.items() <= found.conditions.items():
            return found
    return None
