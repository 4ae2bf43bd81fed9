"""What a gate step decided."""

from __future__ import annotations

from typing import Literal

from optkit.report.base import Finding, Interval, Number

PASS = "pass"
CRITERIA = {
    "max_drop": "drop of top-1",
    "min_agreement": "agreement with the baseline",
    "max_latency_ms": "latency",
    "min_speedup": "speedup",
    "max_bytes": "size",
}
Decision = Literal["pass", "fail", "cannot tell"]


class Criterion(Finding):
    """A limit, what was estimated with its interval, and what that allows to say, in `text` too.

    `needs` says what would decide it: a number of images, or seconds of timing. `crashed`: the process of
    the model or its baseline died, so that nothing is known.
    """

    name: str
    limit: Number | None = None
    unit: str = ""
    estimate: Number | None = None
    interval: Interval | None = None
    verdict: Decision
    needs: dict[str, float] | None = None
    text: str = ""
    crashed: bool = False

    @property
    def words(self) -> str:
        return CRITERIA.get(self.name, self.name.replace("_", " "))


class Gate(Finding):
    """The decision about a model: `verdict` is pass, fail or cannot tell."""

    step: str
    candidate: str
    key: str = ""
    runtime: str = ""
    batch: int | None = None
    baseline: str | None = None
    baseline_runtime: str | None = None
    confidence: float | None = None
    verdict: Decision
    criteria: tuple[Criterion, ...] = ()

    def judges(self, name: str, key: str, runtime: str, batch: int | None) -> bool:
        """Whether the decision is about this row; what the gate does not tell may be anything."""
        return (
            name == self.candidate
            and (not self.key or key == self.key)
            and (not self.runtime or runtime == self.runtime)
            and (self.batch is None or batch == self.batch)
        )
