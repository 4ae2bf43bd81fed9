"""Estimate: how fast a network would be on GPUs that are not here."""

from __future__ import annotations

from typing import Any

import torch

from optkit.core.errors import InputError, UsageError
from optkit.core.names import short_names
from optkit.core.types import Artifact, Context, Format, Output, Precision
from optkit.graph import onnx_file
from optkit.graph.onnx_file import read_onnx
from optkit.measure.estimate import WORD, estimate
from optkit.measure.estimate_onnx import onnx_ops
from optkit.measure.estimate_ops import Op, features, totals, unknown_kinds
from optkit.measure.estimate_setups import choose
from optkit.measure.estimate_torch import module_ops
from optkit.models.build import build, check_size, default_preprocess, rebuild
from optkit.stages.estimate.config import Config

CLASSES = 1000  # ImageNet's
BASIS = (
    "fitted to timm's published throughputs of whole networks in PyTorch, FP16 (automatic mixed precision); "
    "errors are those of the time per image, on families of networks that were left out of the fit"
)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Count a model, or an architecture without weights, and estimate its throughput."""
    models = inputs.get("model", {})
    if bool(models) == (config.arch is not None):
        raise UsageError("Name one thing to estimate.", hint="Give a model, or an architecture with --arch.")
    if models:
        ((given, artifact),) = models.items()
        name = short_names([given])[given]
        size = config.size or artifact.spec.preprocess.size
        ops = _artifact_ops(artifact, size)
        _warn_of_precision(artifact, context)
    else:
        name = str(config.arch)
        size = config.size or default_preprocess(name).size
        with torch.device("meta"):
            module = build(name, config.num_classes or CLASSES)
            check_size(module, name, size)
            ops = module_ops(module, size)
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
        model = read_onnx(artifact.file)
        onnx_file.check_size(model, size)
        return onnx_ops(model, size)
    module, spec = rebuild(artifact.spec), artifact.spec
    check_size(module, spec.arch, size, spec.preprocess.size)
    return module_ops(module, size)
