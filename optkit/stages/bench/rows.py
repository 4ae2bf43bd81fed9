"""Candidates → rows of the result table, and the measurements behind them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from optkit.core.types import Measurement
from optkit.measure.answers import FIGURES
from optkit.measure.statistics import paired_difference
from optkit.stages.bench.candidate import Candidate, reason
from optkit.stages.bench.counted import counted
from optkit.stages.bench.speed import latency_gap, speed

if TYPE_CHECKING:
    from optkit.measure.accuracy import Accuracy

NO_DATA = "no data was given"
NOT_COMPUTED = "the {} runtime computes nothing: its answers and times are not the model's"


def rows(
    candidate: Candidate, batch_sizes: tuple[int, ...], baseline: Candidate | None
) -> list[dict[str, Any]]:
    """One candidate, a row for each batch size. What is null has its reason under `not_measured`."""
    gaps: dict[str, str] = {}
    same = {**_quality(candidate, baseline, gaps), **counted(candidate, gaps)}
    return [_row(candidate, batch, same, dict(gaps)) for batch in batch_sizes]


def _row(candidate: Candidate, batch: int, same: dict[str, Any], gaps: dict[str, str]) -> dict[str, Any]:
    found = {
        "name": candidate.name,
        "key": candidate.artifact.key,
        "format": candidate.artifact.format.value,
        "precision": candidate.artifact.precision.value,
        "runtime": candidate.runtime,
        "computes": candidate.computes,
        "batch": batch,
        **speed(candidate, batch, gaps),
        **same,
        "size_bytes": candidate.artifact.file.stat().st_size,
        "facts": candidate.facts,
    }
    return {**found, "not_measured": gaps}


def accuracy_gap(candidate: Candidate) -> str:
    """Why there is no accuracy."""
    if candidate.error:
        return reason(candidate.error)
    if not candidate.computes:
        return NOT_COMPUTED.format(candidate.runtime)
    return candidate.not_measured.get("top1", NO_DATA)


QUALITY = ("top1", "top1_interval", "n", "ece", "ece_interval", "agreement", "agreement_with", "top1_drop")


def _quality(candidate: Candidate, baseline: Candidate | None, gaps: dict[str, str]) -> dict[str, Any]:
    accuracy = candidate.accuracy
    if accuracy is None:
        gaps |= dict.fromkeys(("top1", "ece", "agreement"), accuracy_gap(candidate))
        return dict.fromkeys(QUALITY)
    ece_interval = dict(zip(FIGURES, accuracy.answers.intervals(0), strict=True))["ece"]
    return {
        "top1": accuracy.top1,
        "top1_interval": list(accuracy.top1_interval),
        "n": accuracy.n,
        "ece": accuracy.ece,
        "ece_interval": ece_interval,
        **_against(candidate, accuracy, baseline, gaps),
    }


def _against(
    candidate: Candidate, accuracy: Accuracy, baseline: Candidate | None, gaps: dict[str, str]
) -> dict[str, Any]:
    """Agreement with the baseline and the drop of top-1, on the same images one by one."""
    if baseline is None or baseline.accuracy is None or baseline.accuracy.indices != accuracy.indices:
        gaps["agreement"] = "the first model was not measured on these images"
        return {"agreement": None, "agreement_with": None, "top1_drop": None}
    reference = {"name": baseline.name, "runtime": baseline.runtime}
    if candidate is baseline:
        return {"agreement": 1.0, "agreement_with": reference, "top1_drop": None}
    same = [this == other for this, other in zip(candidate.answers, baseline.answers, strict=True)]
    paired = asdict(paired_difference(baseline.accuracy.right, accuracy.right))
    return {
        "agreement": sum(same) / len(same),
        "agreement_with": reference,
        "top1_drop": paired | {"interval": list(paired["interval"])},
    }


def measurements(candidate: Candidate, batch_sizes: tuple[int, ...]) -> list[Measurement]:
    """The raw samples of every quantity, or why there are none."""
    found = []
    for batch in batch_sizes:
        timing = candidate.timings.get(batch)
        if timing is None or not timing.samples:
            conditions, why = candidate.conditions(batch), latency_gap(candidate, batch)
            found.append(Measurement(name="latency_ms", unit="ms", conditions=conditions, not_measured=why))
            continue
        conditions = {
            **candidate.conditions(batch),
            "rounds": timing.counts,
            "round_numbers": sorted(timing.rounds),
            "warm_up_calls": len(timing.warm_up_ms),
            "warm_up_steady": timing.steady,
        }
        samples = tuple(round(sample, 4) for sample in timing.samples)
        found.append(Measurement(name="latency_ms", unit="ms", samples=samples, conditions=conditions))
        found += timing.parts
    return [*found, _answers(candidate)]


def _answers(candidate: Candidate) -> Measurement:
    accuracy = candidate.accuracy
    conditions = {name: value for name, value in candidate.conditions(0).items() if name != "batch"}
    return Measurement(
        name="top1",
        unit="1 for each image classified correctly, else 0",
        samples=tuple(float(right) for right in accuracy.right) if accuracy else (),
        conditions=conditions | ({"indices": accuracy.indices} if accuracy else {}),
        not_measured=None if accuracy else accuracy_gap(candidate),
    )
