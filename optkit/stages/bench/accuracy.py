"""Accuracy of the artifact itself, in the runtime and the process that it was timed in."""

from __future__ import annotations

from functools import partial

from optkit.core.errors import OptkitError
from optkit.core.progress import Reporter
from optkit.core.types import Artifact
from optkit.data.base import ImageSet
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.data.sampling import stratified_subset
from optkit.measure.accuracy import measure_accuracy
from optkit.measure.classes import map_classes
from optkit.stages.bench.candidate import Candidate, reason
from optkit.stages.bench.config import Config

BATCH = 32


def evaluation_images(config: Config, models: dict[str, Artifact], reporter: Reporter) -> ImageSet:
    """Images that none of the models was trained on, as many as were asked for."""
    if config.data is None:
        raise ValueError("no data was given")
    trained = [images for artifact in models.values() for images in artifact.spec.trained_on]
    images = load_data(config.data, reporter).evaluation_images(trained, reporter)
    return stratified_subset(images, config.max_images, config.seed) if config.max_images else images


def check_classes(candidates: list[Candidate], images: ImageSet) -> None:
    """Before anything is timed: raises when the data's classes are those of none of the models."""
    errors: list[OptkitError] = []
    for candidate in candidates:
        try:
            map_classes(images.class_names, candidate.artifact.spec.class_names)
        except OptkitError as error:
            errors.append(error)
    if candidates and len(errors) == len(candidates):
        raise errors[0]


def measure_accuracies(candidates: list[Candidate], images: ImageSet, reporter: Reporter) -> None:
    """Every candidate that computes, on the same images. What fails is told: the timings of before are kept."""
    candidates = [one for one in candidates if one.computes and one.process]
    with reporter.track("Accuracy", len(images) * len(candidates)) as task:
        for candidate in candidates:
            try:
                _measure(candidate, images, reporter, partial(task.advance, note=candidate.name))
            except OptkitError as error:
                candidate.not_measured["top1"] = reason(error)
                reporter.warn(f"The accuracy of {candidate.name} was not measured: {reason(error)}")


def _measure(candidate: Candidate, images: ImageSet, reporter: Reporter, progress: partial[None]) -> None:
    spec = candidate.artifact.spec
    mapping = map_classes(images.class_names, spec.class_names)
    if mapping.by == "order":
        reporter.warn(
            f"{candidate.name} does not name its classes: they are taken in the order of the data's."
        )
    candidate.data_classes = {int(own): index for index, own in enumerate(mapping.classes)}
    pixels = batches(images, spec.preprocess, BATCH, reporter)
    candidate.accuracy = measure_accuracy(
        partial(candidate.call, "run"), pixels, spec.class_names, mapping, progress
    )
