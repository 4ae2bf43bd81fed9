"""What a report consists of. `report.json` is this, dumped."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, field_validator

from optkit.core.types import Manifest, Record

Interval = tuple[float, float]
Number = int | float


class Delta(Record):
    """A row against a reference row. Latencies are compared at the same batch, and the runtimes are named.

    `speedup` is the reference's p50 divided by this row's. `top1_difference` and its 95 % interval are
    shares (0.01 is a point) on `n` images, `paired` when both answered the same ones. The ratios are this
    row's bytes and MACs by the reference's.
    """

    reference: str
    reference_format: str
    reference_precision: str
    reference_runtime: str
    runtime: str
    speedup: float | None = None
    top1_difference: float | None = None
    top1_interval: Interval | None = None
    n: int | None = None
    paired: bool = False
    size_ratio: float | None = None
    macs_ratio: float | None = None


class Row(Record):
    """One model in one runtime at one batch size, as a bench step measured it, or a model nobody benched.

    `not_measured` says why a field is empty; `indicative` names percentiles that rest on few samples. Where
    `computes` is False the answers and times are not the model's, and the row is compared with nothing.
    """

    model_config = ConfigDict(extra="ignore")

    name: str
    key: str
    format: str
    precision: str
    runtime: str = ""
    computes: bool = True
    batch: int | None = None
    latency_ms: dict[str, float] | None = None
    throughput: float | None = None
    top1: float | None = None
    top1_interval: Interval | None = None
    n: int | None = None
    macs: Number | None = None
    params: Number | None = None
    size_bytes: int | None = None
    agreement: float | None = None
    not_measured: dict[str, str] = Field(default_factory=dict)
    facts: dict[str, Any] = Field(default_factory=dict)
    indicative: tuple[str, ...] = ()
    bench: str = ""
    on_front: bool = False
    against_baseline: Delta | None = None
    against_source: Delta | None = None

    @field_validator("latency_ms", mode="before")
    @classmethod
    def _drop_empty(cls, value: Any) -> Any:
        """Keep the percentiles that were measured; None where there is none."""
        return {name: ms for name, ms in (value or {}).items() if ms is not None} or None

    @property
    def p50(self) -> float | None:
        return self.latency_ms.get("p50") if self.latency_ms else None

    def reason(self, field: str) -> str:
        """Why `field` is empty."""
        return self.not_measured.get(field) or "no reason was recorded"


class Step(Record):
    """An artifact under its step's name. `sources` are the steps it was made from (or keys from elsewhere).

    The raw samples of its measurements stay in its manifest file.
    """

    name: str
    manifest: Manifest
    sources: tuple[str, ...] = ()


class Warned(Record):
    """A warning and the step that gave it; no step when the report itself warns."""

    step: str
    text: str


class Machine(Record):
    """A machine, its package versions and the steps that ran there."""

    facts: dict[str, Any]
    packages: dict[str, str]
    steps: tuple[str, ...]


class Report(Record):
    """All that is shown, and what `report.json` holds."""

    name: str
    baseline: str | None
    rows: tuple[Row, ...]
    steps: tuple[Step, ...]
    warnings: tuple[Warned, ...]
    machines: tuple[Machine, ...]
    recipe: str | None
    commands: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """What all steps took, whenever they ran."""
        return sum(step.manifest.seconds for step in self.steps)
