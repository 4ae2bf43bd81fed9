"""Options of `gate`: the limits, and which rows of the measurement they are for."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from optkit.core.config import Input, Source, StageConfig
from optkit.core.errors import UsageError
from optkit.core.names import short_names
from optkit.core.types import Format
from optkit.runtimes.base import computes, runtimes_for
from optkit.stages.gate.choose import choose
from optkit.stages.gate.measured import Row

LIMITS = ("max_drop", "min_agreement", "max_latency_ms", "min_speedup", "max_bytes")


class Config(StageConfig):
    """Whether a model keeps its limits: pass, fail, or cannot tell from what was measured."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("bench", (Format.RESULT,), "the result of `optkit bench` to judge"),
    )
    measures: ClassVar[bool] = True

    max_drop: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Points of top-1 that may be lost against the baseline, on the same images one by one.",
    )
    min_agreement: float | None = Field(
        default=None, gt=0, le=1, description="Share of images on which the answer is the baseline's."
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="Latency of a batch, at --latency-percentile."
    )
    latency_percentile: Literal["p50", "p90", "p95", "p99", "p99.9"] = Field(
        default="p50", description="Which percentile of the latency --max-latency-ms limits."
    )
    min_speedup: float | None = Field(
        default=None, gt=0, description="The baseline's latency divided by the candidate's."
    )
    max_bytes: PositiveInt | None = Field(default=None, description="Size of the model file.")
    confidence: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="Of the two-sided interval of each estimate. The whole interval keeps the limit: pass; the whole "
        "interval breaks it: fail; else cannot tell. So 0.95 passes a model that breaks the limit in at most 5 of "
        "100 cases, mostly in 2.5.",
    )
    candidate: str | None = Field(
        default=None,
        description="Model to judge, by the name or the path that it was measured under; default: the only one beside "
        "the baseline.",
    )
    baseline: str | None = Field(
        default=None,
        description="Model to compare with, named likewise; default: the first one of the measurement.",
    )
    runtime: str | None = Field(
        default=None,
        description="Runtime to judge the candidate in; default: the only one it was measured in.",
    )
    baseline_runtime: str | None = Field(
        default=None,
        description="Runtime of the baseline; default: the candidate's where it was measured in it, else its only one.",
    )
    batch: PositiveInt | None = Field(
        default=None, description="Batch size to judge latencies at; default: the only one measured."
    )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that were given."""
        given = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in given.items() if value is not None}

    def has(self, *limits: str) -> bool:
        """Whether one of these limits was given."""
        return not self.limits.keys().isdisjoint(limits)

    @property
    def compares(self) -> bool:
        """Whether a limit is relative to a baseline."""
        return self.has("max_drop", "min_agreement", "min_speedup")

    def check(self) -> None:
        """There is something to check."""
        super().check()
        if not self.limits:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in LIMITS)
            raise UsageError("No limit was given.", hint=f"Give at least one of {options}.")

    def check_sources(self, sources: dict[str, list[Source]]) -> None:
        """The measurement will have what the limits need, and one row is meant: before it is made."""
        for source in sources["bench"]:
            if source.stage != "bench":
                raise UsageError(
                    f"A gate judges a bench step, not a step of {source.stage!r}.",
                    hint="Name one: `bench: STEP`, where STEP has `stage: bench`.",
                )
            bench = source.config.model_dump()
            rows = _planned(source, bench)
            _, baseline = choose(rows, _models(source), self)
            if self.has("min_agreement") and baseline:
                _check_first(baseline, rows)
            if self.has("max_drop", "min_agreement") and bench["data"] is None:
                raise UsageError(
                    "A limit on the answers needs images, and the measurement has none.",
                    hint="Give them: --data photos/, or `data:` in a recipe.",
                )


def _check_first(baseline: Row, rows: list[Row]) -> None:
    """The answers of the baseline are those that a bench compares the others' with."""
    first = next(row for row in rows if row.computes)
    if (baseline.name, baseline.runtime) != (first.name, first.runtime):
        raise UsageError(
            f"Agreement is measured with {first.name!r} in {first.runtime}, and the baseline is {baseline.name!r} in "
            f"{baseline.runtime}.",
            hint=f"Give {baseline.name!r} as the first model and {baseline.runtime} as the first runtime.",
        )


def _models(source: Source) -> dict[str, str]:
    """What each row's name will stand for."""
    return {short: name for name, short in short_names(source.inputs["models"]).items()}


def _planned(source: Source, bench: dict[str, Any]) -> list[Row]:
    """The rows that the measurement will have, as far as they are known before it."""
    return [
        Row(name=short, key="", runtime=runtime, batch=batch, computes=computes(runtime))
        for short, name in _models(source).items()
        for runtime in runtimes_for(source.formats[name], bench["runtimes"])
        for batch in bench["batch_sizes"]
    ]
