"""Fit the layers of a candidate one after the other, each on what the quantised ones before it make of images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from optkit.core.progress import Task
from optkit.graph.qdq import channel_scales
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import GraphModule, Step, Values
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.layer_fit import MomentSums, fit_layer
from optkit.stages.quantize.workbench import Pixels, Workbench

MAX_INPUTS = 4608  # of one output: 512 channels · 3 · 3; the moments of more would not fit into memory
BATCH = 16
IMAGES = 128  # EfficientNet-B0's widest layer takes 10 MB of each, in both networks
IMAGE_SIZE = 256
MIN_SAMPLES = 2048
SAMPLES_PER_INPUT = 24
HELD_OUT = 4  # every fourth batch decides how far to trust the others


def fit_layers(candidate: Candidate, bench: Workbench, what: str, biases_only: bool) -> tuple[Candidate, str]:
    """`candidate` with fitted biases and, unless `biases_only`, weights; and how many layers were left out.

    Unsupported when the graph holds operators without a torch form.
    """
    fit = _LayerFit(candidate, bench.fit, biases_only)
    with bench.reporter.track(what, len(fit.fitted.steps)) as task, torch.no_grad():
        fit.run(task)
    note = f"{fit.done} layers"
    if fit.too_large:
        note += f", {fit.too_large} with more than {MAX_INPUTS} inputs left as they are"
    changed = replace(candidate, fitted=fit.fitted.initializers(), weight_scales=fit.weight_scales)
    return changed, note


@dataclass(frozen=True)
class _Flow:
    """The activations that are alive, of one batch, in the FP32 and in the quantised network."""

    reference: Values
    fitted: Values


class _LayerFit:
    def __init__(self, candidate: Candidate, batches: list[Pixels], biases_only: bool) -> None:
        view = GraphView(candidate.model)
        nodes = [node for node in view.nodes if node.name in candidate.plan.nodes]
        self.axes = {node.name: axis for node in nodes if (axis := view.weight_axis(node)) is not None}
        weights = {node.name: view.constant(node.input[1]) for node in nodes if node.name in self.axes}
        grids = {name: channel_scales(weights[name], axis) for name, axis in self.axes.items()}
        self.weight_scales = dict(candidate.weight_scales)
        self.reference = GraphModule(candidate.model)
        scales = candidate.plan.scales(candidate.ranges)
        self.fitted = GraphModule(
            candidate.fitted_model(), candidate.plan, scales, grids | candidate.weight_scales
        )
        self.biases_only = biases_only
        pixels = torch.from_numpy(_first(batches))
        self.images = len(pixels)
        self.flows = [
            _Flow({self.reference.input: batch}, {self.fitted.input: batch}) for batch in pixels.split(BATCH)
        ]
        self.done = self.too_large = 0

    def run(self, task: Task) -> None:
        """Fit layer after layer, each when the images have come to it."""
        position = 0
        for index, step in enumerate(self.fitted.steps):
            if step.name in self.axes:
                for flow in self.flows:
                    self.reference.run(flow.reference, range(position, index))
                    self.fitted.run(flow.fitted, range(position, index))
                position = index
                self._fit(step, self._inputs(step))
            task.advance(1, step.name)

    def _inputs(self, step: Step) -> Iterator[tuple[Tensor, Tensor]]:
        """What `step` reads in the quantised and in the FP32 network, (groups, k, samples), by batch."""
        weight = self.reference.parameter(step.inputs[1])
        for flow in self.flows:
            x = self.fitted.operands(step, flow.fitted, {})[0]
            y = self.reference.operands(step, flow.reference, {})[0]
            yield _columns(x, weight, step, self.images), _columns(y, weight, step, self.images)

    def _fit(self, step: Step, inputs: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Set the bias of `step` and, where wanted, its weight, on a grid of its own."""
        axis = self.axes[step.name]
        parameter = self.reference.parameter(step.inputs[1])
        rows = parameter if axis == 0 else parameter.T
        matrix = rows.reshape(step.attributes.get("group", 1), -1, rows[0].numel()).double()
        if matrix.shape[-1] > MAX_INPUTS:
            self.too_large += 1
            return
        fit, held = MomentSums(), MomentSums()
        for number, (x, y) in enumerate(inputs):
            (held if number % HELD_OUT == HELD_OUT - 1 else fit).add(x, y)
        if not held.count:  # a single batch has to do for both
            held = fit
        if self.biases_only:
            moments = fit.plus(held).moments() if held is not fit else fit.moments()
            used = self._weight_in_use(step).reshape(matrix.shape).double()
        else:
            used, scales, moments = fit_layer(matrix, fit, held, _smallest_scales(matrix))
            fitted_rows = used.float().reshape(rows.shape)
            self.fitted.parameter(step.inputs[1]).copy_(fitted_rows if axis == 0 else fitted_rows.T)
            self.weight_scales[step.name] = scales.flatten().float().numpy()
            self.fitted.set_weight_grid(step.name, self.weight_scales[step.name], axis)
        if len(step.inputs) > 2:
            drift = matrix @ moments.mean_y[..., None] - used @ moments.mean_x[..., None]
            bias = self.reference.parameter(step.inputs[2])
            self.fitted.parameter(step.inputs[2]).copy_(bias + drift.flatten().float())
        self.done += 1

    def _weight_in_use(self, step: Step) -> Tensor:
        """The rounded weight that `step` has now, output channels first."""
        weight = self.fitted.weight(step)
        return weight if self.axes[step.name] == 0 else weight.T


def _first(batches: list[Pixels]) -> Pixels:
    """As many images as fit into memory while all of them are on their way through the network."""
    wanted = max(16, round(IMAGES * min(1.0, (IMAGE_SIZE / batches[0].shape[-1]) ** 2)))
    needed = -(-wanted // len(batches[0]))
    return np.concatenate(batches[:needed])[:wanted]


def _smallest_scales(matrix: Tensor) -> Tensor:
    """(groups, rows) as in `channel_scales`: a channel of zeros takes a tiny share of the largest weight."""
    floor = float(matrix.abs().max()) * 1e-6 or 1.0
    return torch.full(matrix.shape[:2], floor / 127, dtype=matrix.dtype)


def _columns(x: Tensor, weight: Tensor, step: Step, images: int) -> Tensor:
    """Inputs of the output positions, (groups, k, samples); of large maps an evenly spaced part."""
    if x.ndim != 4:
        return x.reshape(-1, x.shape[-1]).T[None]
    attributes = step.attributes
    groups, kernel, k = attributes.get("group", 1), tuple(weight.shape[2:]), weight[0].numel()
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    x = functional.pad(x, [left, right, top, bottom]) if top or left or bottom or right else x
    strides = attributes.get("strides", [1, 1])
    positions = (x.shape[2] // strides[0]) * (x.shape[3] // strides[1])
    wanted = max(MIN_SAMPLES, SAMPLES_PER_INPUT * k) / images
    skip = max(1, math.floor(math.sqrt(positions / wanted)))
    down, across = (stride * skip for stride in strides)
    if kernel == (1, 1):
        columns = x[:, :, ::down, ::across].flatten(2)
    else:
        columns = functional.unfold(x, kernel, attributes.get("dilations", [1, 1]), 0, [down, across])
    return columns.unflatten(1, (groups, k)).permute(1, 2, 0, 3).flatten(2)
