"""Evaluate: accuracy of one model in one runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Context, Format, Output
from optkit.data.base import Dataset, ImageSet
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.data.unlabelled import unread
from optkit.measure.accuracy import Accuracy, measure_accuracy
from optkit.measure.classes import map_classes
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import DEFAULTS, Session, SessionOptions, any_batch, open_artifact
from optkit.stages.evaluate.config import Config

BATCH = 32
MAX_MISTAKES = 12
MAX_CONFUSIONS = 20
THUMBNAIL_PX = 160


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Run every image of the split through the model."""
    (artifact,) = inputs["model"].values()
    options = SessionOptions(load_module=load_module, threads=config.threads)
    session = open_artifact(artifact, config.runtime, options)
    try:
        data = load_data(config.data, context.reporter)
        images = _images(data, config.split, artifact, context.reporter)
        accuracy = _measure(session, artifact, images, context.reporter)
    finally:
        session.close()
    names = artifact.spec.class_names
    mistakes = _mistakes(accuracy, images, names, context.workdir)
    return Output(
        format=Format.RESULT,
        metrics=accuracy.metrics(config.seed),
        details={
            "class_names": list(names),
            "per_class": accuracy.per_class,
            "confusion": accuracy.confusion,
            "confusions": [
                {"label": names[label], "prediction": names[guess], "n": n}
                for label, guess, n in accuracy.confusions(MAX_CONFUSIONS)
            ],
            "mistakes": mistakes,
            "files": [images.ids[index] for index in accuracy.indices],
            "labels": accuracy.labels,
            "predictions": accuracy.predictions,
            "skipped": [*data.listing.corrupt, *unread(images, accuracy.indices)],
            "runtime": config.runtime or DEFAULTS[artifact.format],
            "facts": session.facts,
        },
    )


def _images(data: Dataset, split: str, artifact: Artifact, reporter: Reporter) -> ImageSet:
    if split == "train":
        hashes = data.train.hashes()
        if any(not set(one.sample).isdisjoint(hashes) for one in artifact.spec.trained_on):
            reporter.warn(
                "TRAINED ON THESE IMAGES: the figures say how well the model learnt them; its accuracy on new "
                "images will be lower."
            )
        return data.train
    return data.evaluation_images(artifact.spec.trained_on, reporter)


def _measure(session: Session, artifact: Artifact, images: ImageSet, reporter: Reporter) -> Accuracy:
    spec = artifact.spec
    mapping = map_classes(images.class_names, spec.class_names)
    if mapping.by == "order":
        reporter.warn("The model does not name its classes: they are taken in the order of the data's.")
    pixels = batches(images, spec.preprocess, BATCH, reporter)
    with reporter.track("Evaluating", len(images)) as task:
        return measure_accuracy(any_batch(session), pixels, spec.class_names, mapping, task.advance)


def _mistakes(
    accuracy: Accuracy, images: ImageSet, names: Sequence[str], workdir: Path
) -> list[dict[str, Any]]:
    """The wrong answers with the largest loss, the largest first, and their thumbnails in `workdir`."""
    answers = accuracy.answers
    wrong = np.flatnonzero(~answers.right)
    worst = wrong[np.argsort(-answers.losses[wrong], kind="stable")][:MAX_MISTAKES]
    found: list[dict[str, Any]] = []
    for position in worst:
        index = accuracy.indices[position]
        thumbnail = images.open_image(index)
        thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        path = workdir / "mistakes" / f"{len(found):02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        thumbnail.save(path, quality=85)
        found.append(
            {
                "file": images.ids[index],
                "image": path.relative_to(workdir).as_posix(),
                "label": names[answers.labels[position]],
                "prediction": names[answers.predictions[position]],
                "p": float(answers.confidences[position]),
            }
        )
    return found
