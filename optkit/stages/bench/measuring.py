"""Accuracy and latency of candidates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import OptkitError
from optkit.core.progress import Reporter
from optkit.core.types import Measurement
from optkit.data.base import ImageSet
from optkit.data.loading import batches
from optkit.measure.accuracy import measure_accuracy
from optkit.measure.classes import map_classes
from optkit.measure.latency import Subject, measure_latency
from optkit.runtimes.base import Profiled, Session, any_batch
from optkit.stages.bench.candidate import Candidate, reason

ACCURACY_BATCH = 32
PROFILE_RUNS = 200


def measure_accuracies(candidates: list[Candidate], images: ImageSet, reporter: Reporter) -> None:
    """Every candidate that computes, on the same images; raises when none of them could be measured."""
    candidates = [candidate for candidate in candidates if candidate.computes]
    errors: list[OptkitError] = []
    with reporter.track("Accuracy", len(images) * len(candidates)) as task:
        for candidate in candidates:
            try:
                progress = partial(task.advance, note=candidate.name)
                _measure_accuracy(candidate, images, reporter, progress)
            except OptkitError as error:
                errors.append(error)
                candidate.not_measured["top1"] = reason(error)
    if errors and len(errors) == len(candidates):
        raise errors[0]


def _measure_accuracy(
    candidate: Candidate, images: ImageSet, reporter: Reporter, progress: Callable[[int], None]
) -> None:
    spec, session = candidate.artifact.spec, candidate.session
    if session is None:
        raise ValueError("the candidate is not open")
    mapping = map_classes(images.class_names, spec.class_names)
    if mapping.by == "order":
        reporter.warn(
            f"{candidate.name} does not name its classes: they are taken in the order of the data's."
        )
    pixels = batches(images, spec.preprocess, ACCURACY_BATCH, reporter)
    candidate.accuracy = measure_accuracy(any_batch(session), pixels, spec.class_names, mapping, progress)


def measure_latencies(
    candidates: list[Candidate], batch: int, seconds: float, seed: int, reporter: Reporter
) -> None:
    """Time every candidate that takes this batch size, in turns."""
    timed: list[tuple[Candidate, NDArray[np.float32]]] = []
    for candidate in candidates:
        size = candidate.artifact.spec.preprocess.size
        shape = (batch, 3, size, size)
        pixels = np.random.default_rng(seed).standard_normal(shape, np.float32)
        if why := _not_runnable(candidate, pixels, batch):
            candidate.not_measured[f"latency_ms at batch {batch}"] = why
        else:
            timed.append((candidate, pixels))
    with reporter.track(f"Timing at batch {batch}") as task:
        subjects = [
            Subject(call=_call(candidate.session, pixels), conditions=candidate.conditions(batch))
            for candidate, pixels in timed
            if candidate.session
        ]
        found = measure_latency(subjects, seconds, task.advance)
    for (candidate, pixels), latency in zip(timed, found, strict=True):
        candidate.timings[batch] = [latency, *_profile(candidate, pixels)]


def _call(session: Session, pixels: NDArray[np.float32]) -> Callable[[], object]:
    return lambda: session.run(pixels)


def _not_runnable(candidate: Candidate, pixels: NDArray[np.float32], batch: int) -> str | None:
    """Try once, so that a refusal is not met in the middle of timing others."""
    if why := candidate.refused_batch(batch):
        return why
    try:
        _ = candidate.session and candidate.session.run(pixels)
    except OptkitError as error:
        return reason(error)
    return None


def _profile(candidate: Candidate, pixels: NDArray[np.float32]) -> list[Measurement]:
    """Copies and computation apart, with CUDA graphs off and on, where the session can tell."""
    if not isinstance(candidate.session, Profiled):
        return []
    measurements = []
    for cuda_graph in (False, True):
        parts = candidate.session.profile(pixels, PROFILE_RUNS, cuda_graph)
        conditions = {**candidate.conditions(len(pixels)), "cuda_graph": cuda_graph}
        measurements += [
            Measurement(name=f"{part}_ms", unit="ms", samples=tuple(samples), conditions=conditions)
            for part, samples in parts.items()
        ]
    return measurements
