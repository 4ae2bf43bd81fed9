"""What a report says of a quantised model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field, FiniteFloat, computed_field

from optkit.report.base import Finding

# Targets that quantisation does not run: their figures come from ONNX Runtime.
SIMULATED = ("openvino", "tensorrt")


class Operator(Finding):
    """A node of an ONNX graph; `reason` says why it is left in FP32.

    `sqnr_db` is that of the logits when this operator alone is quantised, in decibels.
    """

    node: str
    op: str = ""
    reason: str = ""
    sqnr_db: FiniteFloat | None = None


class Validation(Finding):
    """A file against FP32 on validation images: `drop` of top-1 in points, with its 95 % interval."""

    sqnr_db: FiniteFloat | None = None
    agreement: FiniteFloat | None = None
    drop: FiniteFloat | None = None
    drop_interval: tuple[FiniteFloat, FiniteFloat] | None = None


class Rung(Finding):
    """A recovery method that was tried, and what the file with it reached, whether it was kept or not.

    `before_db` is the SQNR that it started from. SQNR and agreement are those on held-out calibration images,
    where some were held out; of a kept rung's file `validation` tells the same on validation images.
    """

    rung: str
    kept: bool = False
    before_db: FiniteFloat | None = None
    sqnr_db: FiniteFloat | None = None
    agreement: FiniteFloat | None = None
    validation: Validation | None = None
    seconds: FiniteFloat | None = None
    note: str = ""

    @property
    def gain_db(self) -> float | None:
        if self.sqnr_db is None or self.before_db is None:
            return None
        return self.sqnr_db - self.before_db


class QuantizeBudget(Finding):
    """What a quantised model may lose, and whether it holds that: points of top-1, a share, decibels."""

    max_drop: FiniteFloat | None = None
    min_agreement: FiniteFloat | None = None
    min_sqnr: FiniteFloat | None = None
    held: bool = False


class Peak(Finding):
    """The largest magnitude that was seen, and of which tensor or node."""

    name: str = Field(validation_alias=AliasChoices("tensor", "node", "name"))
    value: FiniteFloat


class Speed(Finding):
    """Latencies of both files, and their `ratio` INT8 / FP32 with its 95 % interval.

    INT8 ran in `runtime`, FP32 in `fp32_runtime`, the one where it is fastest.
    """

    runtime: str
    fp32_runtime: str
    device: str
    batch: int
    fp32_ms: FiniteFloat
    int8_ms: FiniteFloat
    ratio: FiniteFloat
    interval: tuple[FiniteFloat, FiniteFloat]
    threads: int
    verdict: Literal["faster", "slower", "cannot tell"]


class FloatPrefix(Finding):
    """A file whose first layers are in floating point, and how fast it is.

    `layers` counts those with weights in floating point, `until` is the node where INT8 begins; `ratio` is to the
    latency of the fastest FP32 in the same rounds, with its 95 % interval. One of those tried is `chosen`; it and the
    one as planned were timed in more rounds than the others.
    """

    layers: int
    until: str
    ms: FiniteFloat
    ratio: FiniteFloat
    interval: tuple[FiniteFloat, FiniteFloat]
    chosen: bool = False


class Quantized(Finding):
    """What a `quantize` step did; `sentence` sums it up, `facts` are what no other field holds.

    `set_aside` is False where there were too few calibration images to hold some out for judging.
    `float_prefix` are the files that were timed before the ladder, the one as planned first.
    `converted` counts the operators in the new precision by type; `left` are those that stayed in FP32. Of FP16
    and BF16 `limit` is what no activation and no sum of an operator in that precision may come near, and
    `validated_by` the arithmetic behind `validation`.
    """

    step: str
    model: str
    precision: str
    target: str = ""
    sentence: str = ""
    ladder: tuple[Rung, ...] = ()
    set_aside: bool = True
    budget: QuantizeBudget | None = None
    validation: Validation | None = None
    validated_by: str = ""
    sensitivity: tuple[Operator, ...] = ()
    speed: Speed | None = None
    float_prefix: tuple[FloatPrefix, ...] = ()
    converted: dict[str, int] = Field(default_factory=dict)
    left: tuple[Operator, ...] = ()
    largest_activation: Peak | None = None
    largest_sum: Peak | None = None
    limit: FiniteFloat | None = None
    facts: dict[str, Any] = Field(default_factory=dict)

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def simulated(self) -> bool:
        """Whether there are figures of accuracy that the target's own runtime did not compute."""
        measured = self.ladder or self.sensitivity or self.facts.get("sqnr_db_of_calibrators")
        return bool(self.validated_by) or (self.target in SIMULATED and bool(measured))
