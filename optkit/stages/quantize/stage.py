"""Quantise an ONNX classifier: prepare, choose calibration images, and make the file of the wanted precision."""

from __future__ import annotations

from typing import Any

import onnx

from optkit.core.errors import InputError
from optkit.core.types import Artifact, Context, Format, Output, Precision
from optkit.data.base import Dataset
from optkit.data.calibration import CalibrationSet, choose_calibration, read_calibration
from optkit.data.config import BUILT_IN
from optkit.data.load import load_data
from optkit.graph.onnx_file import classifier_io, embed_spec, read_onnx, write_onnx
from optkit.graph.qdq_prepare import FP8_OPSET, MIN_OPSET, parameter_count, prepare
from optkit.stages.quantize.config import Config
from optkit.stages.quantize.eight_bit import Source, quantize, validation_checker
from optkit.stages.quantize.sixteen_bit import convert_to_sixteen_bit, judge


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Write `model.onnx` for `config.target`, and `calibration.json` with the images that it was made from."""
    (artifact,) = inputs["model"].values()
    given = read_onnx(artifact.file)
    io = classifier_io(given)
    if io.num_classes < 2:
        raise InputError(
            "The ONNX file has one output only.",
            why="Agreement and accuracy are those of the largest of several logits.",
            hint="Export the classifier with a logit for every class.",
        )
    precision = Precision(config.precision)
    model = prepare(given, FP8_OPSET if precision is Precision.FP8 else MIN_OPSET)
    dataset = load_data(config.data, context.reporter, artifact.spec.class_names)
    if config.data.path in BUILT_IN and dataset.class_names != artifact.spec.class_names:
        context.reporter.warn(
            f"Calibrated on the built-in set {config.data.path!r}, which is not what this model was made for: "
            "its ranges may be far off. Give images like those it will see, with --data."
        )
    calibration = _calibration(config, inputs.get("calibration", {}), dataset, context)
    source = Source(model, io, artifact.spec, dataset, calibration)
    if precision in (Precision.FP16, Precision.BF16):
        result, details = _sixteen_bit(source, precision, config, context)
    else:
        result, details = quantize(source, config, context)
    spec = artifact.spec.also_trained_on(dataset.trained_on()) if config.climbs else artifact.spec
    embed_spec(result, spec)
    write_onnx(result, context.workdir / Format.ONNX.filename)
    metrics = {
        key: value
        for key, value in artifact.manifest.metrics.items()
        if key in ("macs", "params", "activations")
    }
    return Output(
        format=Format.ONNX,
        precision=precision,
        spec=spec,
        metrics={"params": parameter_count(given), **metrics},
        details={"quantization": details | calibration.facts()},
    )


def _calibration(
    config: Config, given: dict[str, Artifact], dataset: Dataset, context: Context
) -> CalibrationSet:
    """The calibration images that were given, else a choice of our own; kept beside the model."""
    if given:
        (artifact,) = given.values()
        calibration = read_calibration(artifact.file, dataset, context.reporter)
    else:
        calibration = choose_calibration(
            dataset, config.calibration_images, config.seed, config.data.path, context.reporter
        )
    calibration.write(context.workdir)
    return calibration


def _sixteen_bit(
    source: Source, precision: Precision, config: Config, context: Context
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    images = source.calibration.images
    pixels = source.pixels(images, config, context.reporter)
    with context.reporter.track("scanning ranges", len(images)) as task:
        result, details = convert_to_sixteen_bit(source.model, source.io, precision, pixels, task)
    if len(source.dataset.val):
        details |= judge(result, precision, validation_checker(source, config, context.reporter))
    return result, {"target": config.target, "precision": precision.value, **details}
