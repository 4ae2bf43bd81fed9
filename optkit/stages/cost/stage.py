"""Cost: how much work one image is, counted and not timed."""

from __future__ import annotations

from typing import Any

import torch

from optkit.core.errors import UsageError
from optkit.core.types import Artifact, Context, Format, Output
from optkit.graph import onnx_file
from optkit.graph.onnx_file import read_onnx
from optkit.measure.cost import module_cost
from optkit.measure.counts import ACTIVATIONS, NEVER_COUNTED, TRAFFIC, UNIT, Cost
from optkit.measure.formula import by_formula, explain, with_separable
from optkit.measure.onnx_cost import onnx_cost
from optkit.models.build import build, check_size, default_preprocess, rebuild
from optkit.stages.cost.config import Config

CLASSES = 1000  # ImageNet's


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Count a model, or an architecture without weights."""
    models = list(inputs.get("model", {}).values())
    if bool(models) == (config.arch is not None):
        raise UsageError("Name one thing to count.", hint="Give a model, or an architecture with --arch.")
    if models:
        size = config.size or models[0].spec.preprocess.size
        name, cost = models[0].spec.arch, _artifact_cost(models[0], size)
    else:
        name = str(config.arch)
        size = config.size or default_preprocess(name).size
        with torch.device("meta"):
            module = build(name, config.num_classes or CLASSES)
            check_size(module, name, size)
            cost = module_cost(module, size)
    if cost.unknown:
        context.reporter.warn(f"MACs are a lower bound: no shapes for {', '.join(cost.unknown[:5])}.")
    return Output(format=Format.RESULT, metrics=_metrics(cost, size), details=_details(cost, name))


def _metrics(cost: Cost, size: int) -> dict[str, float]:
    moved = cost.bytes_at(1)
    return {
        **cost.metrics(),
        "weight_bytes": cost.weight_bytes,
        "activation_bytes": cost.activation_bytes,
        "bytes": moved,
        **({"macs_per_byte": cost.macs / moved} if moved else {}),
        "size": size,
    }


def _details(cost: Cost, name: str) -> dict[str, Any]:
    shapes = list(cost.shapes.values())
    return {
        "name": name,
        "unit": UNIT,
        "units": {"macs": UNIT, "activations": ACTIVATIONS, "bytes": TRAFFIC},
        "layers": [layer.row() | by_formula(cost.shapes.get(layer.name)) for layer in cost.layers],
        "formula": explain(shapes, cost.macs, cost.params),
        "separable_flops": with_separable(shapes, cost.macs),
        "not_counted": cost.not_counted,
        "never_counted": NEVER_COUNTED,
        "unknown": cost.unknown,
    }


def _artifact_cost(artifact: Artifact, size: int) -> Cost:
    if artifact.format == Format.ONNX:
        model = read_onnx(artifact.file)
        onnx_file.check_size(model, size)
        return onnx_cost(model, size)
    module, spec = rebuild(artifact.spec), artifact.spec
    check_size(module, spec.arch, size, spec.preprocess.size)
    return module_cost(module, size)
