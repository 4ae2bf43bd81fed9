"""Estimate: how fast a network would be on GPUs that are not here."""

from __future__ import annotations

from typing import Any

import torch

from optkit.core.errors import InputError, UsageError
from optkit.core.names import short_names
from optkit.core.types import Artifact, Context, Format, ModelSpec, Output, Precision
from optkit.graph import onnx_file
from optkit.measure.estimate import WORD, estimate
from optkit.measure.estimate_onnx import onnx_ops
from optkit.measure.estimate_ops import Op, features, totals, unknown_kinds
from optkit.measure.estimate_setups import choose
from optkit.measure.estimate_torch import module_ops
from optkit.models.build import bare_spec, rebuild_at
from optkit.stages.estimate.config import Config

BASIS = (
    "fitted to timm's published throughputs of whole networks in PyTorch, FP16 (automatic mixed precision); "
    "errors are those of the images per second, on families of networks that were left out of the fit"
)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Count a model, or an architecture without weights, and estimate its throughput."""
    models = inputs.get("model", {})
    if bool(models) == (config.arch is not None):
        raise UsageError("Name one thing to estimate.", hint="Give a model, or an architecture with --arch.")
    if models:
        ((given, artifact),) = models.items()
        name, size = short_names([given])[given], config.size or artifact.spec.preprocess.size
        ops = _artifact_ops(artifact, size)
        _warn_of_precision(artifact, context)
    else:
        spec = bare_spec(str(config.arch), config.num_classes)
        name, size = spec.arch, config.size or spec.preprocess.size
        ops = _network_ops(spec, size)
    macs, activations = totals(ops)
    return Output(
        format=Format.RESULT,
        metrics={"macs": macs, "activations": activations, "size": size},
        details={"name": name, "estimates": _rows(config, name, ops, context), "basis": BASIS, "word": WORD},
    )


def _rows(config: Config, name: str, ops: list[Op], context: Context) -> list[dict[str, Any]]:
    counted, unknown = features(ops), unknown_kinds(ops)
    found = [
        estimate(counted, setup, unknown).to_json(name)
        for setup in choose(config.gpu, config.compiled, config.setup)
    ]
    missing = set(config.gpu) - {row["gpu"] for row in found}
    if missing:
        context.reporter.warn(f"There are no throughputs of {', '.join(sorted(missing))} with torch.compile.")
    for row in found:
        if row["beyond"]:
            context.reporter.warn(
                f"{row['setup']}: extrapolated, with twice the range: {'; '.join(row['beyond'])}."
            )
    return found


def _warn_of_precision(artifact: Artifact, context: Context) -> None:
    if artifact.precision not in (Precision.FP32, Precision.FP16):
        context.reporter.warn(
            f"The estimates are of this network in FP16 in PyTorch: no measurement in "
            f"{artifact.precision.upper()} backs a figure."
        )


def _artifact_ops(artifact: Artifact, size: int) -> list[Op]:
    if artifact.format == Format.ENGINE:
        raise InputError(
            f"The operations of the engine {str(artifact.file)!r} cannot be counted.",
            why="An engine is a program for one GPU, not a network.",
            hint="Give the ONNX file that it was built from: an engine artifact holds it as model.onnx.",
        )
    if artifact.format == Format.ONNX:
        model = onnx_file.read_onnx(artifact.file)
        onnx_file.check_size(model, size)
        return onnx_ops(model, size)
    return _network_ops(artifact.spec, size)


def _network_ops(spec: ModelSpec, size: int) -> list[Op]:
    with torch.device("meta"):  # where tensors go that a network makes on its way
        return module_ops(rebuild_at(spec, size), size)
