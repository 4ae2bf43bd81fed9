"""A model in a runtime, and what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from optkit.core.errors import MissingError, OptkitError
from optkit.core.types import Artifact, Measurement
from optkit.measure.accuracy import Accuracy
from optkit.runtimes.base import Session


@dataclass
class Candidate:
    """`error` is why it could not be opened; `not_measured` has a reason for every other gap.

    `computes` is False where the answers are not the model's, so that no accuracy is measured.
    `timings` are the measurements of each batch size: the latency first, then what the device itself timed.
    """

    name: str
    artifact: Artifact
    runtime: str
    session: Session | None = None
    computes: bool = True
    error: OptkitError | None = None
    accuracy: Accuracy | None = None
    timings: dict[int, list[Measurement]] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)

    def conditions(self, batch: int) -> dict[str, Any]:
        """What a measurement of this candidate belongs to."""
        return {
            "model": self.name,
            "key": self.artifact.key,
            "runtime": self.runtime,
            "batch": batch,
            "threads": self.session.facts.get("threads") if self.session else None,
        }

    def refused_batch(self, batch: int) -> str | None:
        """Why the file does not take this batch size, None when it does."""
        facts = self.session.facts if self.session else {}
        fixed, largest = facts.get("fixed_batch"), facts.get("max_batch")
        if fixed and batch != fixed:
            return f"the file fixes its batch at {fixed}"
        if largest and batch > largest:
            return f"the file takes batches of at most {largest}"
        return None


def reason(error: OptkitError) -> str:
    """An error as one line: of what the machine lacks the cause alone, as the row says what the model is."""
    if isinstance(error, MissingError) and error.why:
        return error.why
    return " ".join(filter(None, (error.message, error.why)))
