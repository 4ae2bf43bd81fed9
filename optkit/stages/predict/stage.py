"""Predict: the most likely classes of images without labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Context, Format, Output, Preprocess
from optkit.data.base import CorruptImage
from optkit.data.files import NO_IMAGES_HINT, find_files
from optkit.data.images import is_image, open_rgb
from optkit.data.loading import normalise, resize_and_crop
from optkit.measure.accuracy import probabilities
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import SessionOptions, any_batch, open_artifact
from optkit.stages.predict.config import Config

BATCH = 16


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Ask the model about every image; corrupt ones are listed with the reason."""
    (artifact,) = inputs["model"].values()
    files = [file for file in find_files(config.images) if is_image(file)]
    if not files:
        raise InputError(f"{', '.join(config.images)!r} holds no image.", hint=NO_IMAGES_HINT)
    session = open_artifact(artifact, config.runtime, SessionOptions(load_module=load_module))
    names, ask = artifact.spec.class_names, any_batch(session)
    predictions: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    try:
        with context.reporter.track("Predicting", len(files)) as task:
            for read, pixels in _batches(files, artifact.spec.preprocess, skipped):
                for file, p in zip(read, probabilities(ask(pixels), len(names)), strict=True):
                    best = np.argsort(-p, kind="stable")[: config.top_k]
                    top = [{"class": names[index], "p": float(p[index])} for index in best]
                    predictions.append({"file": str(file), "top": top})
                task.advance(len(read))
    finally:
        session.close()
    _report(skipped, predictions, context.reporter)
    _write_csv(predictions, context.workdir / "predictions.csv")
    return Output(
        format=Format.RESULT,
        metrics={"n": len(predictions), "skipped": len(skipped)},
        details={"predictions": predictions, "skipped": skipped, "facts": session.facts},
    )


def _batches(
    files: list[Path], preprocess: Preprocess, skipped: list[dict[str, str]]
) -> Iterator[tuple[list[Path], NDArray[np.float32]]]:
    """Files that could be read, with their pixels; the others are added to `skipped`."""
    for start in range(0, len(files), BATCH):
        read, images = [], []
        for file in files[start : start + BATCH]:
            try:
                images.append(resize_and_crop(open_rgb(file), preprocess))
                read.append(file)
            except CorruptImage as error:
                skipped.append({"file": str(file), "reason": str(error)})
        if read:
            yield read, normalise(np.stack(images), preprocess)


def _write_csv(predictions: list[dict[str, Any]], path: Path) -> None:
    """One line an image: `file,class_1,p_1,class_2,p_2,…`, the most likely class first."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        places = range(1, len(predictions[0]["top"]) + 1)
        writer.writerow(["file", *(name for place in places for name in (f"class_{place}", f"p_{place}"))])
        for answer in predictions:
            top = [value for entry in answer["top"] for value in (entry["class"], f"{entry['p']:.6f}")]
            writer.writerow([answer["file"], *top])


def _report(skipped: list[dict[str, str]], predictions: list[dict[str, Any]], reporter: Reporter) -> None:
    named = ", ".join(f"{entry['file']} ({entry['reason']})" for entry in skipped[:5])
    if not predictions:
        raise InputError("None of the images can be read.", why=named, hint="Check the files.")
    if skipped:
        reporter.warn(f"Skipped {len(skipped)} corrupt images: {named}.")
