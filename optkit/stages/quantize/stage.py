"""Quantise an ONNX classifier to INT8: prepare, plan, observe calibration images, insert Q/DQ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core import discover, fingerprint
from optkit.core.errors import InputError
from optkit.core.types import Artifact, Context, Format, Output, Precision, Preprocess
from optkit.data.base import ImageSet
from optkit.data.config import BUILT_IN
from optkit.data.load import load_data
from optkit.data.loading import batches, calibration_subset
from optkit.graph.onnx_file import ClassifierIO, classifier_io, embed_spec, read_onnx, write_onnx
from optkit.graph.qdq import QdqPlan, insert_qdq, summary
from optkit.graph.qdq_prepare import parameter_count, prepare
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.calibrators.base import Observed
from optkit.stages.quantize.choose import choose_calibrator, find_ranges
from optkit.stages.quantize.config import AUTO, CALIBRATORS, PLACEMENTS, Config
from optkit.stages.quantize.observe import observe

TRIAL_IMAGES = 48  # enough to tell calibrators apart, and little memory


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Write `model.onnx` with Q/DQ pairs for `config.target`."""
    (artifact,) = inputs["model"].values()
    source = read_onnx(artifact.file)
    io = classifier_io(source)
    model = prepare(source)
    view = GraphView(model)
    planned: QdqPlan = discover.load(PLACEMENTS, config.target, "target").plan(view)
    if not planned.nodes:
        raise InputError(
            "Nothing in the ONNX file can be quantised.",
            why=f"The target {config.target!r} would leave every operator in floating point.",
            hint="Export the model again, with its weights as constants.",
        )
    dataset = load_data(config.data, context.reporter)
    if config.data.path in BUILT_IN and dataset.class_names != artifact.spec.class_names:
        context.reporter.warn(
            f"Calibrated on the built-in set {config.data.path!r}, which is not what this model was made for: "
            "its ranges may be far off. Give images like those it will see, with --data."
        )
    images = calibration_subset(dataset.train, config.calibration_images, config.seed)
    fitted, trial = _split(images) if config.calibrator == AUTO else (images, None)
    observed, used = _observe(config, model, io, planned, fitted, artifact.spec.preprocess, context)
    calibrator, tried = config.calibrator, {}
    if trial is not None:
        size = io.batch or config.calibration_batch
        pixels = [batch.pixels for batch in batches(trial, artifact.spec.preprocess, size, context.reporter)]
        calibrator, tried = choose_calibrator(model, io, planned, observed, pixels, context.reporter)
    quantized = insert_qdq(model, planned, find_ranges(calibrator, view, planned, observed))
    embed_spec(quantized, artifact.spec)
    write_onnx(quantized, context.workdir / Format.ONNX.filename)
    metrics = {key: value for key, value in artifact.manifest.metrics.items() if key in ("macs", "params")}
    details = {
        "target": config.target,
        "calibrator": calibrator,
        "sqnr_db_of_calibrators": tried,
        **_calibration_facts(fitted, used, context),
        **summary(model, planned),
    }
    return Output(
        format=Format.ONNX,
        precision=Precision.INT8,
        spec=artifact.spec,
        metrics={"params": parameter_count(source), **metrics},
        details={"quantization": details},
    )


def _split(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Images to take ranges from, and at most TRIAL_IMAGES others to compare calibrators on."""
    count = max(1, min(TRIAL_IMAGES, len(images) // 8))
    if len(images) < 2 * count:  # a single image has to do for both
        return images, images
    trial = np.linspace(0, len(images) - 1, count).astype(np.int64)
    return images.subset(np.setdiff1d(np.arange(len(images)), trial)), images.subset(trial)


def _observe(
    config: Config,
    model: onnx.ModelProto,
    io: ClassifierIO,
    planned: QdqPlan,
    images: ImageSet,
    preprocess: Preprocess,
    context: Context,
) -> tuple[dict[str, Observed], list[int]]:
    """What calibration saw of every tensor, and the indices of the images that could be read."""
    histograms = (
        config.calibrator == AUTO or discover.load(CALIBRATORS, config.calibrator, "calibrator").HISTOGRAM
    )
    used: list[int] = []

    def pixels() -> Iterator[NDArray[np.float32]]:
        for batch in batches(images, preprocess, io.batch or config.calibration_batch, context.reporter):
            used.extend(batch.indices.tolist())
            yield batch.pixels

    with context.reporter.track("calibrating", len(images)) as task:
        return observe(model, io, planned.observed(), pixels(), histograms, task), used


def _calibration_facts(images: ImageSet, used: list[int], context: Context) -> dict[str, Any]:
    """How many images of how many classes, and a digest that tells two calibration sets apart."""
    present = len(np.unique(images.labels[used]))
    classes = len(images.class_names)
    if present < classes:
        context.reporter.warn(f"The {len(used)} calibration images show {present} of {classes} classes.")
    return {
        "images": len(used),
        "classes_present": present,
        "classes": classes,
        "calibration_digest": fingerprint.of_value([images.ids[index] for index in used]),
    }
