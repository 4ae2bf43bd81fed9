"""Predict: the most likely classes of images without labels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError
from optkit.core.types import Artifact, Context, Format, Output
from optkit.data.files import find_images
from optkit.data.loading import batches
from optkit.data.unlabelled import unlabelled_images, unread
from optkit.measure.accuracy import Logits, ranked
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import SessionOptions, any_batch, open_artifact
from optkit.stages.predict.config import Config

BATCH = 16


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Ask the model about every image; corrupt ones are listed with the reason."""
    (artifact,) = inputs["model"].values()
    images, reporter = unlabelled_images(find_images(config.images)), context.reporter
    session = open_artifact(artifact, config.runtime, SessionOptions(load_module=load_module))
    names, ask = artifact.spec.class_names, any_batch(session)
    logits = Logits(len(names))
    predictions: list[dict[str, Any]] = []
    read: list[int] = []
    try:
        with reporter.track("Predicting", len(images)) as task:
            for batch in batches(images, artifact.spec.preprocess, BATCH, reporter):
                p = logits.of(ask(batch.pixels)).softmax(dim=1).numpy()
                for index, row, order in zip(batch.indices, p, ranked(p), strict=True):
                    top = [{"class": names[place], "p": float(row[place])} for place in order[: config.top_k]]
                    predictions.append({"file": images.ids[index], "top": top})
                read += batch.indices.tolist()
                task.advance(len(batch.indices))
    finally:
        session.close()
    skipped = unread(images, read)
    if not predictions:
        named = ", ".join(f"{entry['file']} ({entry['reason']})" for entry in skipped[:5])
        raise InputError("None of the images can be read.", why=named, hint="Check the files.")
    _write_csv(predictions, context.workdir / "predictions.csv")
    return Output(
        format=Format.RESULT,
        metrics={"n": len(predictions), "skipped": len(skipped)},
        details={"predictions": predictions, "skipped": skipped, "facts": session.facts},
    )


def _write_csv(predictions: list[dict[str, Any]], path: Path) -> None:
    """One line an image: `file,class_1,p_1,class_2,p_2,…`, the most likely class first."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        places = range(1, len(predictions[0]["top"]) + 1)
        writer.writerow(["file", *(name for place in places for name in (f"class_{place}", f"p_{place}"))])
        for answer in predictions:
            top = [value for entry in answer["top"] for value in (entry["class"], f"{entry['p']:.6f}")]
            writer.writerow([answer["file"], *top])
