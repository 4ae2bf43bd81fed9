"""A calibrator for every tensor: the one whose rounding and clipping moves the logits least, see `importance.py`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from optkit.core import discover
from optkit.graph.qdq import Range
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import GraphModule
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.choose import find_ranges
from optkit.stages.quantize.config import CALIBRATORS
from optkit.stages.quantize.importance import values_and_gradients
from optkit.stages.quantize.workbench import Workbench

ORDER = 20
IMAGES = 64


def improve(candidate: Candidate, bench: Workbench) -> tuple[Candidate, str] | None:
    """Every observed tensor with the range of its best calibrator."""
    view = GraphView(candidate.model)
    names = discover.names(CALIBRATORS)
    by_calibrator = {name: find_ranges(name, view, candidate.plan, candidate.observed) for name in names}
    options = {
        tensor: list(
            dict.fromkeys([candidate.ranges[tensor], *(found[tensor] for found in by_calibrator.values())])
        )
        for tensor in candidate.ranges
    }
    several = {tensor: ranges for tensor, ranges in options.items() if len(ranges) > 1}
    if not several:
        return None
    errors = _errors(candidate, bench, several)
    chosen = {tensor: options[tensor][values.index(min(values))] for tensor, values in errors.items()}
    changed = sum(candidate.ranges[tensor] != found for tensor, found in chosen.items())
    return (
        replace(candidate, ranges=candidate.ranges | chosen),
        f"{changed} of {len(options)} ranges changed",
    )


def _errors(
    candidate: Candidate, bench: Workbench, options: dict[str, list[Range]]
) -> dict[str, list[float]]:
    """The estimated error of the logits for every range of every tensor."""
    module = GraphModule(candidate.model)
    errors = {tensor: [0.0] * len(ranges) for tensor, ranges in options.items()}
    generator = torch.Generator().manual_seed(bench.seed)
    with bench.reporter.track("weighing ranges", IMAGES) as task:
        seen = 0
        for pixels in bench.fit:
            if seen >= IMAGES:
                break
            seen += len(pixels)
            values, gradients = values_and_gradients(
                module, torch.from_numpy(pixels), list(options), generator
            )
            for tensor, ranges in options.items():
                for index, found in enumerate(ranges):
                    errors[tensor][index] += _error(
                        candidate, tensor, found, values[tensor], gradients[tensor]
                    )
            task.advance(len(pixels))
    return errors


def _error(candidate: Candidate, tensor: str, found: Range, value: Tensor, gradient: Tensor) -> float:
    grid = candidate.plan.grid
    low, high = found
    if tensor in candidate.plan.floors:
        low = max(low, candidate.plan.floors[tensor])
    scale, zero = grid.scale(low, high)
    rounded = torch.fake_quantize_per_tensor_affine(value, float(scale), zero, grid.low_code, grid.high_code)
    return float(((rounded - value) * gradient).square().sum())
