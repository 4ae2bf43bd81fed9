"""What a gate judges: a row, its baseline, and the samples behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.core.types import Artifact, Measurement
from optkit.stages.gate.measured import Measured, Row, samples

WITH_IMAGES = "Measure with images: optkit gate BASELINE CANDIDATE --data photos/"
AGAIN = "Measure again, where every model can be executed."


@dataclass(frozen=True)
class Case:
    """`baseline` is None where no limit needs one."""

    artifact: Artifact
    measured: Measured
    candidate: Row
    baseline: Row | None
    confidence: float

    def reference(self) -> Row:
        """The baseline, of a case that has one."""
        if self.baseline is None:
            raise ValueError("no limit needs a baseline")
        return self.baseline

    def crash(self) -> str:
        """That one of the two failed while it was measured (its process died), and why; empty where neither did."""
        for row in (self.candidate, self.baseline):
            if row is not None and (why := self.measured.crash(row)) is not None:
                return f"{row} failed while it was measured: {why}".removesuffix(": ")
        return ""

    def answers(self, row: Row) -> Measurement:
        """Which images its model got right; InputError where accuracy was not measured."""
        return self._samples(row, "top1", "accuracy", WITH_IMAGES)

    def latency(self, row: Row) -> Measurement:
        """Its calls, in ms; InputError where it was not timed."""
        return self._samples(row, "latency_ms", "latency", AGAIN)

    def seconds(self) -> float:
        """How long each model was timed, as it was asked for; 1 where the measurement does not say."""
        asked = self.artifact.manifest.config.get("seconds")
        return float(asked) if isinstance(asked, int | float) and asked > 0 else 1.0

    def _samples(self, row: Row, quantity: str, words: str, hint: str) -> Measurement:
        found = samples(self.artifact, row, quantity)
        if found is None:
            raise missing(row, quantity, words, hint)
        return found


def missing(row: Row, quantity: str, words: str, hint: str) -> InputError:
    """A criterion lacks its data."""
    reason = row.not_measured.get(quantity)
    return InputError(
        f"The {words} of {row} was not measured.", why=f"{reason}." if reason else "", hint=hint
    )


def rounds(latency: Measurement) -> list[int]:
    """How many calls belong to each round; none where the measurement does not say."""
    found = latency.conditions.get("rounds")
    if not isinstance(found, list) or not all(isinstance(n, int) and n > 0 for n in found):
        return []
    return found if sum(found) == len(latency.samples) else []


def paired_medians(
    first: Measurement, second: Measurement
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each in every round in which both had their turn; empty where that cannot be told."""
    numbers = [_numbers(one) for one in (first, second)]
    if None in numbers:  # an older measurement: by position, where no round is missing
        counts = [len(rounds(one)) for one in (first, second)]
        numbers = [range(count if counts[0] == counts[1] else 0) for count in counts]
    medians = [
        dict(zip(ids or (), _medians(one), strict=False))
        for ids, one in zip(numbers, (first, second), strict=True)
    ]
    shared = sorted(medians[0].keys() & medians[1].keys())
    this, other = (np.array([of[number] for number in shared]) for of in medians)
    return this, other


def _numbers(latency: Measurement) -> Sequence[int] | None:
    """Which round each of its rounds is, counted over all models; None where the measurement does not say."""
    found = latency.conditions.get("round_numbers")
    is_list = isinstance(found, list) and all(isinstance(one, int) for one in found)
    return found if is_list and len(set(found)) == len(found) == len(rounds(latency)) else None


def _medians(latency: Measurement) -> list[float]:
    ends = np.cumsum(rounds(latency))
    parts = np.split(np.array(latency.samples), ends[:-1]) if len(ends) else []
    return [float(np.median(part)) for part in parts]
