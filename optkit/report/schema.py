"""What a report consists of. `report.json` is this, dumped."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, field_validator

from optkit.core.types import Manifest, Record
from optkit.report.base import NO_REASON, Finding, Interval, Number
from optkit.report.bench_schema import (
    Bench,
    DeviceTimes,
    Energy,
    Estimate,
    Memory,
    Offline,
    Reference,
    Server,
    Verdict,
)
from optkit.report.evaluation_schema import Evaluation, Explanation
from optkit.report.gate_schema import Gate
from optkit.report.quantisation_schema import Quantized


class Delta(Record):
    """A row against a reference row. Latencies are compared at the same batch, and the runtimes are named.

    `speedup` is the reference's p50 divided by this row's; where the bench timed the two side by side, what it
    says of their rounds, with `latency_interval` (of this latency by the reference's) and its `verdict`.
    `top1_difference` and its 95 % interval are shares (0.01 is a point) on `n` images, `paired` when both
    answered the same ones: then `lost` and `won` count the images that changed, and `p_value` is McNemar's.
    The ratios are this row's bytes and MACs by the reference's. `not_comparable` says why the latencies are not,
    `no_verdict` why there is none on them; where the two answered `other_images`, their top-1 is not compared.
    """

    reference: str
    reference_format: str
    reference_precision: str
    reference_runtime: str
    runtime: str
    speedup: float | None = None
    latency_interval: Interval | None = None
    verdict: Verdict | None = None
    rounds: int | None = None
    not_comparable: str = ""
    no_verdict: str = ""
    other_images: bool = False
    top1_difference: float | None = None
    top1_interval: Interval | None = None
    n: int | None = None
    paired: bool = False
    lost: int | None = None
    won: int | None = None
    p_value: float | None = None
    size_ratio: float | None = None
    macs_ratio: float | None = None


def _known(value: Any) -> Any:
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


class Row(Record):
    """One model in one runtime at one batch size, as a bench step measured it, or a model nobody benched.

    `not_measured` says why a field is empty, `refused` why a percentile is; `indicative` names percentiles that
    rest on few samples. Where `computes` is False the answers and times are not the model's, and the row is
    compared with nothing. Rows of one `group` were measured under the same conditions; `is_partial` tells that Ctrl-C
    ended the bench. `parts` are the times of copies and computation by the device's own clock.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    name: str
    key: str
    format: str
    precision: str
    runtime: str = ""
    computes: bool = True
    batch: int | None = None
    latency_ms: dict[str, float] | None = None
    latency_intervals: dict[str, Interval] = Field(default_factory=dict)
    refused: dict[str, str] = Field(default_factory=dict)
    samples: int | None = None
    throughput: float | None = None
    offline: Offline | None = None
    server: Server | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    top1: float | None = None
    top1_interval: Interval | None = None
    n: int | None = None
    ece: float | None = None
    ece_interval: Interval | None = None
    macs: Number | None = None
    params: Number | None = None
    activations: Number | None = None
    size_bytes: int | None = None
    agreement: float | None = None
    agreement_with: Reference | None = None
    not_measured: dict[str, str] = Field(default_factory=dict)
    facts: dict[str, Any] = Field(default_factory=dict)
    indicative: tuple[str, ...] = ()
    parts: tuple[DeviceTimes, ...] = ()
    bench: str = ""
    is_partial: bool = False
    group: int = 0
    top1_step: str = ""  # which step measured top-1, where the bench step did not
    on_front: bool = False
    against_baseline: Delta | None = None
    against_source: Delta | None = None

    @field_validator("latency_ms", mode="before")
    @classmethod
    def _drop_empty(cls, value: Any) -> Any:
        """Keep the percentiles that were measured; None where there is none."""
        return _known(value) or None

    @field_validator("latency_intervals", "refused", "not_measured", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        """A dictionary that was not written; an interval that is not known."""
        return _known(value) or {}

    @property
    def p50(self) -> float | None:
        return self.latency_ms.get("p50") if self.latency_ms else None

    @property
    def on_gpu(self) -> bool:
        """What the runtime said it ran on; no word of it is a CPU."""
        return str(self.facts.get("device", "cpu")) not in ("cpu", "none")

    def reason(self, field: str) -> str:
        """Why `field`, or a percentile, is empty."""
        refused = self.refused.get("p50" if field == "latency_ms" else field)
        return self.not_measured.get(field) or refused or NO_REASON


class Step(Record):
    """An artifact under its step's name. `sources` are the steps it was made from (or keys from elsewhere).

    The raw samples of its measurements stay in its manifest file.
    """

    name: str
    manifest: Manifest
    sources: tuple[str, ...] = ()


class Leaks(Finding):
    """Validation images with a copy in training (`exact`, `near`), training images with one of another class."""

    exact: int = 0
    near: int = 0
    contradictory: int = 0
    checked: int | None = None
    pairs: tuple[tuple[str, ...], ...] = ()


class DataCard(Finding):
    """The data of the steps named in `steps`, as their training saw it."""

    steps: tuple[str, ...] = ()
    classes: int | None = None
    train: int | None = None
    val: int | None = None
    held_out: bool | None = None
    corrupt: tuple[dict[str, Any], ...] = ()
    corrupt_count: int = 0
    per_class: dict[str, tuple[int, int]] = Field(default_factory=dict)  # images in training, in validation
    imbalance: float | None = None
    images: dict[str, Any] = Field(default_factory=dict)
    leaks: Leaks | None = None


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
    """All that is shown, and what `report.json` holds.

    The pictures stay in the artifacts below `folder`, from where the page takes them in.
    """

    name: str
    folder: str
    baseline: str | None
    rows: tuple[Row, ...]
    steps: tuple[Step, ...]
    evaluations: tuple[Evaluation, ...]
    explanations: tuple[Explanation, ...]
    data: tuple[DataCard, ...]
    quantized: tuple[Quantized, ...]
    benches: tuple[Bench, ...]
    gates: tuple[Gate, ...]
    estimates: tuple[Estimate, ...]
    warnings: tuple[Warned, ...]
    machines: tuple[Machine, ...]
    recipe: str | None
    commands: tuple[str, ...]

    @property
    def benched(self) -> bool:
        """Whether any model was; without that the table of results has no columns of times."""
        return any(row.bench for row in self.rows)

    @property
    def seconds(self) -> float:
        """What all steps took, whenever they ran."""
        return sum(step.manifest.seconds for step in self.steps)
