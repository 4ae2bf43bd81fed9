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
from optkit.data.load import load_data
from optkit.data.loading import batches, calibration_subset
from optkit.graph.onnx_file import ClassifierIO, classifier_io, embed_spec, read_onnx, write_onnx
from optkit.graph.qdq import QdqPlan, Range, insert_qdq, summary
from optkit.graph.qdq_prepare import parameter_count, prepare
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.calibrators.base import Observed
from optkit.stages.quantize.config import CALIBRATORS, PLACEMENTS, Config
from optkit.stages.quantize.observe import observe


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
    images = calibration_subset(dataset.train, config.calibration_images, config.seed)
    observed, used = _observe(config, model, io, planned, images, artifact.spec.preprocess, context)
    quantized = insert_qdq(model, planned, find_ranges(config.calibrator, view, planned, observed))
    embed_spec(quantized, artifact.spec)
    write_onnx(quantized, context.workdir / Format.ONNX.filename)
    metrics = {key: value for key, value in artifact.manifest.metrics.items() if key in ("macs", "params")}
    details = {
        "target": config.target,
        "calibrator": config.calibrator,
        **_calibration_facts(images, used, context),
        **summary(model, planned),
    }
    return Output(
        format=Format.ONNX,
        precision=Precision.INT8,
        spec=artifact.spec,
        metrics={"params": parameter_count(source), **metrics},
        details={"quantization": details},
    )


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
    calibrator = discover.load(CALIBRATORS, config.calibrator, "calibrator")
    used: list[int] = []

    def pixels() -> Iterator[NDArray[np.float32]]:
        for batch in batches(images, preprocess, io.batch or config.calibration_batch, context.reporter):
            used.extend(batch.indices.tolist())
            yield batch.pixels

    with context.reporter.track("calibrating", len(images)) as task:
        return observe(model, io, planned.observed(), pixels(), calibrator.HISTOGRAM, task), used


def find_ranges(
    calibrator: str, view: GraphView, planned: QdqPlan, observed: dict[str, Observed]
) -> dict[str, Range]:
    """Range of every observed tensor.

    Calibrators clip outliers. A tensor that its operator bounds has none: cutting into the plateau at 6 of a
    ReLU6 costs EfficientNet-Lite0 5 dB with `entropy`, so such tensors keep the observed range.
    """
    find_range = discover.load(CALIBRATORS, calibrator, "calibrator").find_range
    return {
        name: (entry.low, entry.high) if view.is_bounded(name) else find_range(entry, planned.grid)
        for name, entry in observed.items()
    }


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
