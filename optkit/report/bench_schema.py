"""What bench and estimate steps tell beside their rows, as their manifests' `details` hold it."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field

from optkit.report.base import Finding, Interval, Number

Verdict = Literal["faster", "slower", "cannot tell"]


class Offline(Finding):
    """Images per second when all are there at once, in `streams` of batches."""

    images_per_s: float
    interval: Interval | None = None
    streams: int | None = None
    batch: int | None = None


class Server(Finding):
    """The highest rate of requests at random moments (Poisson) whose `percentile` stays within `bound_ms`."""

    queries_per_s: float
    bound_ms: float | None = None
    percentile: str = ""
    streams: int | None = None


class Memory(Finding):
    """The most that a process held, what it held before the model was opened, and the GPU's part, in bytes."""

    peak_rss_bytes: int | None = None
    rss_before_bytes: int | None = None
    gpu_bytes: int | None = None


class Energy(Finding):
    """Joules per image by a counter of the processor (`rapl`) or of the GPU (`nvml`)."""

    joules_per_image: float
    source: str = ""


class DeviceTimes(Finding):
    """Medians of the parts of a run on a GPU, in ms, with or without a CUDA graph, or timed `like` another tool."""

    cuda_graph: bool | None = None
    like: str = ""
    h2d_ms: float | None = None
    compute_ms: float | None = None
    d2h_ms: float | None = None
    enqueue_ms: float | None = None


class Reference(Finding):
    """What something is compared with."""

    name: str = ""
    key: str = ""
    runtime: str = ""


class Comparison(Finding):
    """`ratio`: this latency by the reference's, of rounds side by side, with its interval and what it allows to say."""

    name: str
    key: str = ""
    runtime: str = ""
    batch: int | None = None
    reference: Reference
    ratio: float
    interval: Interval | None = None
    confidence: float | None = None
    verdict: Verdict
    rounds: int | None = None


class FlippedImage(Finding):
    """An image of which the model and its reference say different things, one of them right.

    `image` is its thumbnail's path in the artifact; `before` is the reference's answer.
    """

    image: str = ""
    file: str = ""
    label: str | int | None = None
    before: str | int | None = None
    after: str | int | None = None
    p_before: float | None = None
    p_after: float | None = None

    @property
    def kind(self) -> str:
        """`lost`, `won`, or `changed` where neither answer is the label."""
        was_right, is_right = (answer == self.label for answer in (self.before, self.after))
        if was_right == is_right:
            return "changed"
        return "lost" if was_right else "won"


class ClassFlips(Finding):
    """Images of one class: right before and wrong now (`lost`), and the other way round (`won`)."""

    name: str | int = Field(validation_alias=AliasChoices("class", "name"))
    n: int | None = None
    lost: int = 0
    won: int = 0


class Flips(Finding):
    """What changed between a model and its reference, image by image; `p_value` is McNemar's."""

    name: str
    key: str = ""
    runtime: str = ""
    reference: str = ""
    n: int | None = None
    lost: int = 0
    won: int = 0
    p_value: float | None = None
    by_class: tuple[ClassFlips, ...] = ()
    images: tuple[FlippedImage, ...] = ()


class Layer(Finding):
    """A layer's time, and the least that the two ceilings of the machine allow (`limit_ms`).

    `share` is that of the model's time, `of_limit` the part of the limiting ceiling that was reached. A layer without
    MACs was not counted, and has no limit.
    """

    name: str
    type: str = ""
    precision: str | None = None
    ms: float | None = None
    share: float | None = None
    macs: Number | None = None
    bytes: Number | None = None
    macs_per_byte: float | None = None
    limit_ms: float | None = None
    of_limit: float | None = None
    bound: str | None = None

    @property
    def macs_per_s(self) -> float | None:
        """What was reached."""
        return self.macs / (self.ms / 1000) if self.macs and self.ms else None


class LayerCosts(Finding):
    """The profile of a model in a runtime; `unmapped_ms` belongs to no layer of the network.

    `limit_ms` is the least that the ceilings allow all counted layers, `of_limit` its part of `total_ms`;
    `without_time` names the counted layers that no kernel stands for, `note` how to read the figures.
    """

    name: str
    key: str = ""
    runtime: str = ""
    batch: int | None = None
    total_ms: float | None = None
    unmapped_ms: float | None = None
    limit_ms: float | None = None
    of_limit: float | None = None
    without_time: tuple[str, ...] = ()
    note: str = ""
    layers: tuple[Layer, ...] = ()


class Roofline(Finding):
    """The two ceilings of a machine, as measured: MACs per second by precision, and bytes per second."""

    macs_per_s: dict[str, float] = Field(default_factory=dict)
    bytes_per_s: float | None = None
    device: str = ""
    threads: int | None = None
    how: str = ""


class Trace(Finding):
    """Load, clock and temperature while the bench ran; `gaps` says why a column could not be read."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[float | None, ...], ...] = ()
    gaps: dict[str, str] = Field(default_factory=dict)


class Failed(Finding):
    """A process that crashed."""

    name: str = ""
    runtime: str = ""
    why: str = ""


class Distribution(Finding):
    """The latencies of a model in a runtime at a batch size, made small.

    `ecdf` are points (ms, share of calls within it); `rounds` are the medians of the rounds in ms, of
    `rounds_each` rounds together where these were many.
    """

    name: str
    key: str
    runtime: str
    batch: int
    calls: int
    ecdf: tuple[tuple[float, float], ...]
    rounds: tuple[float, ...] = ()
    rounds_each: int = 1


class Bench(Finding):
    """All that a bench step found out, beside its rows."""

    step: str
    comparisons: tuple[Comparison, ...] = ()
    flips: tuple[Flips, ...] = ()
    layers: tuple[LayerCosts, ...] = ()
    roofline: Roofline | None = None
    trace: Trace | None = None
    failed: tuple[Failed, ...] = ()
    interrupted: bool = False
    distributions: tuple[Distribution, ...] = ()


class Estimate(Finding):
    """Images per second of a model on a GPU that is not here, with the errors of such estimates.

    `range_90` is meant to hold the truth of 90 in 100 models; `median_error` and `mape` are shares of it, on held-out
    models. `beyond` says what makes it an extrapolation, and `basis` what it was fitted to.
    """

    name: str
    gpu: str
    setup: str = ""
    images_per_s: float
    range_90: Interval | None = None
    median_error: float | None = None
    mape: float | None = None
    n_models: int | None = None
    n_families: int | None = None
    batch: int | None = None
    precision: str = ""
    beyond: tuple[str, ...] = ()
    basis: str = ""
    word: str = "estimate"
