"""Options of `gate`: the limits, and which rows of the measurement they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from optkit.core.config import Input, Source, StageConfig
from optkit.core.errors import UsageError, closest
from optkit.core.types import Format

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
        default=None, description="Name of the model to judge; default: the only one beside the baseline."
    )
    baseline: str | None = Field(
        default=None,
        description="Name of the model to compare with; default: the first one of the measurement.",
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
                raise UsageError(f"A gate judges a bench step, not a step of {source.stage!r}.")
            bench = source.config.model_dump()
            candidate, baseline = self.judged(source.inputs["models"])
            if candidate == baseline and self.compares and len(bench["runtimes"]) < 2:
                raise nothing_to_compare(candidate)
            if self.has("max_drop", "min_agreement") and bench["data"] is None:
                raise UsageError(
                    "A limit on the answers needs images, and the measurement has none.",
                    hint="Give them: --data photos/, or `data:` in a recipe.",
                )
            if self.runtime is None:
                one_of(bench["runtimes"], "runtime")
            if self.has("max_latency_ms", "min_speedup"):
                self.batch_of(bench["batch_sizes"])

    def judged(self, models: Sequence[str]) -> tuple[str, str]:
        """Names of the candidate and the baseline among the models measured; they may be the same one."""
        models = list(dict.fromkeys(models))
        baseline = _named(self.baseline, models, "baseline") or models[0]
        candidate = _named(self.candidate, models, "candidate")
        if candidate is None:
            candidate = one_of([name for name in models if name != baseline] or [baseline], "candidate")
        return candidate, baseline

    def batch_of(self, batch_sizes: Sequence[int]) -> int:
        """The batch size at which latencies are judged."""
        if self.batch is not None and self.batch not in batch_sizes:
            raise UsageError(
                f"Batch size {self.batch} is not measured.", hint=f"Measure it: --batch-sizes {self.batch}."
            )
        return self.batch or int(one_of([str(size) for size in batch_sizes], "batch"))


def one_of(names: Sequence[str], option: str) -> str:
    """The only one ("" of none); UsageError, which lists them, where there are several."""
    if len(names) > 1:
        raise UsageError(
            f"Several could be judged: {', '.join(names)}.",
            hint=f"Say which one, with --{option.replace('_', '-')}.",
        )
    return names[0] if names else ""


def nothing_to_compare(name: str) -> UsageError:
    """A limit needs a baseline, and there is none."""
    return UsageError(
        f"There is nothing to compare {name!r} with.",
        hint="Measure the baseline before it: `optkit gate BASELINE CANDIDATE`.",
    )


def _named(wanted: str | None, models: Sequence[str], what: str) -> str | None:
    """The model as the measurement names it: a folder may be given with or without its last slash."""
    if wanted is None:
        return None
    known = {name.rstrip("/"): name for name in models}
    if wanted.rstrip("/") not in known:
        raise UsageError(
            f"The {what} {wanted!r} is not among the models measured.", hint=closest(wanted, known)
        )
    return known[wanted.rstrip("/")]
