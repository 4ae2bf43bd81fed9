"""Candidates → rows of the result table, and the measurements behind them."""

from __future__ import annotations

from typing import Any

import numpy as np

from optkit.core.errors import OptkitError
from optkit.core.types import Artifact, Format, Measurement
from optkit.graph.onnx_file import read_onnx
from optkit.measure.accuracy import Accuracy
from optkit.measure.cost import Cost, module_cost, onnx_cost
from optkit.measure.statistics import paired_difference, percentiles
from optkit.models.build import rebuild
from optkit.stages.bench.candidate import Candidate, reason

NO_DATA = "no data was given"
NOT_COMPUTED = "the {} runtime computes nothing: its answers and times are not the model's"


def row(candidate: Candidate, batch: int, baseline: Candidate | None) -> dict[str, Any]:
    """One candidate at one batch size. What is null has its reason under `not_measured`."""
    gaps: dict[str, str] = {}
    found = {
        "name": candidate.name,
        "key": candidate.artifact.key,
        "format": candidate.artifact.format.value,
        "precision": candidate.artifact.precision.value,
        "runtime": candidate.runtime,
        "computes": candidate.computes,
        "batch": batch,
        **_speed(candidate, batch, gaps),
        **_quality(candidate, baseline, gaps),
        **_cost(candidate.artifact, gaps),
        "size_bytes": candidate.artifact.file.stat().st_size,
        "facts": candidate.session.facts if candidate.session else {},
    }
    return {**found, "not_measured": gaps}


def _speed(candidate: Candidate, batch: int, gaps: dict[str, str]) -> dict[str, Any]:
    if batch not in candidate.timings:
        why = latency_gap(candidate, batch)
        gaps |= {"latency_ms": why, "throughput": why}
        return {"latency_ms": None, "throughput": None, "samples": 0, "indicative": []}
    latency = candidate.timings[batch][0]
    summary = percentiles(latency.samples)
    return {
        "latency_ms": summary.values(),
        "throughput": batch * len(latency.samples) / (sum(latency.samples) / 1000),  # images per second
        "samples": len(latency.samples),
        "indicative": list(summary.indicative),
    }


def latency_gap(candidate: Candidate, batch: int) -> str:
    """Why there is no latency."""
    if candidate.error:
        return reason(candidate.error)
    return candidate.not_measured[f"latency_ms at batch {batch}"]


def accuracy_gap(candidate: Candidate) -> str:
    """Why there is no accuracy."""
    if candidate.error:
        return reason(candidate.error)
    if not candidate.computes:
        return NOT_COMPUTED.format(candidate.runtime)
    return candidate.not_measured.get("top1", NO_DATA)


def _quality(candidate: Candidate, baseline: Candidate | None, gaps: dict[str, str]) -> dict[str, Any]:
    accuracy = candidate.accuracy
    if accuracy is None:
        why = accuracy_gap(candidate)
        gaps |= {"top1": why, "agreement": why}
        return {"top1": None, "top1_interval": None, "n": None, "agreement": None, "top1_drop": None}
    return {
        "top1": accuracy.top1,
        "top1_interval": list(accuracy.top1_interval),
        "n": accuracy.n,
        **_against(candidate, accuracy, baseline, gaps),
    }


def _against(
    candidate: Candidate, accuracy: Accuracy, baseline: Candidate | None, gaps: dict[str, str]
) -> dict[str, Any]:
    """Agreement with the baseline and the drop of top-1, on the same images one by one."""
    if baseline is None or baseline.accuracy is None or baseline.accuracy.indices != accuracy.indices:
        gaps["agreement"] = "the first model was not measured on these images"
        return {"agreement": None, "top1_drop": None}
    names, reference = (
        np.array(one.artifact.spec.class_names)[answers.predictions]
        for one, answers in ((candidate, accuracy), (baseline, baseline.accuracy))
    )
    paired = paired_difference(baseline.accuracy.right, accuracy.right)
    return {
        "agreement": float((names == reference).mean()),
        "top1_drop": {"drop": paired.drop, "interval": list(paired.interval), "p_value": paired.p_value},
    }


def _cost(artifact: Artifact, gaps: dict[str, str]) -> dict[str, Any]:
    """From the manifest where the step that made it counted, else counted now."""
    known = {name: artifact.manifest.metrics.get(name) for name in ("macs", "params")}
    if None not in known.values():
        return known
    try:
        cost = _count(artifact)
    except OptkitError as error:
        gaps |= dict.fromkeys(known, reason(error))
        return known
    if cost is None:
        gaps |= dict.fromkeys(known, "an engine does not say; bench the artifact folder that its export made")
        return known
    if cost.unknown:
        gaps["macs"] = f"no shapes for {len(cost.unknown)} layers, such as {cost.unknown[0]}"
    return {"macs": None if cost.unknown else cost.macs, "params": cost.params}


def _count(artifact: Artifact) -> Cost | None:
    if artifact.format == Format.TORCH:
        return module_cost(rebuild(artifact.spec).eval(), artifact.spec.preprocess.size)
    if artifact.format == Format.ONNX:
        return onnx_cost(read_onnx(artifact.file), artifact.spec.preprocess.size)
    return None


def measurements(candidate: Candidate, batch_sizes: tuple[int, ...]) -> list[Measurement]:
    """The raw samples of every quantity, or why there are none."""
    found = []
    for batch in batch_sizes:
        missing = Measurement(
            name="latency_ms",
            unit="ms",
            conditions=candidate.conditions(batch),
            not_measured=None if batch in candidate.timings else latency_gap(candidate, batch),
        )
        found += candidate.timings.get(batch, [missing])
    accuracy = candidate.accuracy
    conditions = {name: value for name, value in candidate.conditions(0).items() if name != "batch"}
    top1 = Measurement(
        name="top1",
        unit="1 for each image classified correctly, else 0",
        samples=tuple(float(right) for right in accuracy.right) if accuracy else (),
        conditions=conditions,
        not_measured=None if accuracy else accuracy_gap(candidate),
    )
    return [*found, top1]
