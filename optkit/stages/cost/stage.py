"""Cost: how much work one image is, counted and not timed."""

from __future__ import annotations

from typing import Any

import torch

from optkit.core.errors import UsageError
from optkit.core.types import Artifact, Context, Format, Output
from optkit.graph import onnx_file
from optkit.measure.cost import module_cost
from optkit.measure.counts import ACTIVATIONS, NEVER_COUNTED, TRAFFIC, UNIT, Cost
from optkit.measure.formula import by_formula, explain, with_separable
from optkit.measure.onnx_cost import onnx_cost
from optkit.models.build import bare_spec, rebuild_at
from optkit.stages.cost.config import Config


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Count a model, or an architecture without weights."""
    models = list(inputs.get("model", {}).values())
    if bool(models) == (config.arch is not None):
        raise UsageError("Name one thing to count.", hint="Give a model, or an architecture with --arch.")
    spec = models[0].spec if models else bare_spec(str(config.arch), config.num_classes)
    size = config.size or spec.preprocess.size
    if models and models[0].format == Format.ONNX:
        model = onnx_file.read_onnx(models[0].file)
        onnx_file.check_size(model, size)
        cost = onnx_cost(model, size)
    else:
        with torch.device("meta"):  # where tensors go that a network makes on its way
            cost = module_cost(rebuild_at(spec, size), size)
    if cost.unknown:
        context.reporter.warn(f"MACs are a lower bound: no shapes for {', '.join(cost.unknown[:5])}.")
    return Output(format=Format.RESULT, metrics=_metrics(cost, size), details=_details(cost, spec.arch))


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
