"""Refit the layers of a candidate one after the other, each on what the quantised ones before it make of images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from optkit.core import machine
from optkit.core.progress import Task
from optkit.graph.qdq import channel_scales
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import GraphModule, Step, Values
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.execute import Pixels
from optkit.stages.quantize.least_squares import MomentSums, fit_layer
from optkit.stages.quantize.workbench import Workbench

MAX_INPUTS = 4608  # of one output: 512 channels · 3 · 3; the moments of more would not fit into memory
MIN_SAMPLES = 2048  # of every layer, over all images
SAMPLES_PER_INPUT = 24
BATCH = 16
HELD_OUT = 4  # every fourth image decides how far to trust the others
MEMORY_SHARE = 0.2  # of the machine, for the activations of all images


def refit_layers(
    candidate: Candidate, bench: Workbench, what: str, biases_only: bool
) -> tuple[Candidate, str]:
    """`candidate` with fitted biases and, unless `biases_only`, weights; and how many layers and images that took.

    Unsupported when the graph holds operators without a torch form.
    """
    refit = _Refit(candidate, bench.fit, biases_only)
    with bench.reporter.track(what, len(refit.fitted.steps)) as task, torch.no_grad():
        refit.run(task)
    note = f"{refit.done} layers, {refit.images} images"
    if refit.too_large:
        note += f"; {refit.too_large} with more than {MAX_INPUTS} inputs left as they are"
    changed = replace(candidate, fitted=refit.fitted.initializers(), weight_scales=refit.weight_scales)
    return changed, note


@dataclass(frozen=True)
class _Flow:
    """The activations that are alive, of one batch, in the FP32 and in the quantised network."""

    reference: Values
    fitted: Values
    is_held: bool


class _Refit:
    def __init__(self, candidate: Candidate, batches: list[Pixels], biases_only: bool) -> None:
        view = GraphView(candidate.model)
        nodes = [node for node in view.nodes if node.name in candidate.plan.nodes]
        self.axes = {node.name: axis for node in nodes if (axis := view.weight_axis(node)) is not None}
        self.with_bias = {node.name for node in nodes if view.bias(node) is not None}
        weights = {node.name: view.constant(node.input[1]) for node in nodes if node.name in self.axes}
        grids = {name: channel_scales(weights[name], axis) for name, axis in self.axes.items()}
        self.weight_scales = dict(candidate.weight_scales)
        self.reference = GraphModule(candidate.model)
        scales = candidate.plan.scales(candidate.ranges)
        self.fitted = GraphModule(
            candidate.fitted_model(), candidate.plan, scales, grids | candidate.weight_scales
        )
        self.biases_only = biases_only
        pixels = torch.cat([torch.from_numpy(batch) for batch in batches])
        pixels = pixels[: affordable(self.reference, pixels[:1], copies=2)]
        self.images = len(pixels)
        held = torch.arange(self.images) % HELD_OUT == HELD_OUT - 1
        self.flows = [
            _Flow({self.reference.input: batch}, {self.fitted.input: batch}, is_held)
            for is_held in (False, True)
            for batch in pixels[held == is_held].split(BATCH)
            if len(batch)
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
                self._fit(step)
            task.advance(1, step.name)

    def _fit(self, step: Step) -> None:
        """Set the bias of `step` and, where wanted, its weight, on a grid of its own."""
        axis = self.axes[step.name]
        parameter = self.reference.parameter(step.inputs[1])
        rows = parameter if axis == 0 else parameter.T
        matrix = rows.reshape(step.attributes.get("group", 1), -1, rows[0].numel()).double()
        if matrix.shape[-1] > MAX_INPUTS:
            self.too_large += 1
            return
        sums = {is_held: MomentSums(step.name in self.with_bias) for is_held in (False, True)}
        for flow, x, y in self._inputs(step):
            sums[flow.is_held].add(x, y)
        fit = sums[False]
        held = sums[True] if sums[True].count else fit  # a few images have to do for both
        if self.biases_only:
            moments = fit.moments() if held is fit else fit.plus(held).moments()
            weight = self.fitted.weight(step)
            used = (weight if axis == 0 else weight.T).reshape(matrix.shape).double()
        else:
            used, scales, moments = fit_layer(matrix, fit, held, _smallest_scales(matrix))
            fitted_rows = used.float().reshape(rows.shape)
            self.fitted.parameter(step.inputs[1]).copy_(fitted_rows if axis == 0 else fitted_rows.T)
            self.weight_scales[step.name] = scales.flatten().float().numpy()
            self.fitted.set_weight_grid(step.name, self.weight_scales[step.name], axis)
        if step.name in self.with_bias:
            drift = matrix @ moments.mean_y[..., None] - used @ moments.mean_x[..., None]
            bias = self.reference.parameter(step.inputs[2])
            self.fitted.parameter(step.inputs[2]).copy_(bias + drift.flatten().float())
        self.done += not self.biases_only or step.name in self.with_bias

    def _inputs(self, step: Step) -> Iterator[tuple[_Flow, Tensor, Tensor]]:
        """What `step` reads in the quantised and in the FP32 network, (groups, k, samples), by batch."""
        weight = self.reference.parameter(step.inputs[1])
        for turn, flow in enumerate(self.flows):
            x = self.fitted.operand(step, 0, flow.fitted)
            y = self.reference.operand(step, 0, flow.reference)
            yield flow, *(_columns(inputs, weight, step, self.images, turn) for inputs in (x, y))


def affordable(module: GraphModule, image: Tensor, copies: int) -> int:
    """How many images may be on their way at once, with what is alive of each `copies` times in memory."""
    memory = machine.facts()["memory_bytes"] or 0
    each = copies * image.element_size() * module.peak_values(image)
    return max(BATCH, int(MEMORY_SHARE * memory / each))


def _smallest_scales(matrix: Tensor) -> Tensor:
    """(groups, rows) as in `channel_scales`: a channel of zeros takes a tiny share of the largest weight."""
    floor = float(matrix.abs().max()) * 1e-6 or 1.0
    return torch.full(matrix.shape[:2], floor / 127, dtype=matrix.dtype)


def _columns(x: Tensor, weight: Tensor, step: Step, images: int, turn: int) -> Tensor:
    """Inputs of the output positions, (groups, k, samples); of large maps an evenly spaced part, another each turn."""
    if x.ndim != 4:
        return x.reshape(-1, x.shape[-1]).T[None]
    attributes = step.attributes
    groups, kernel, k = attributes.get("group", 1), tuple(weight.shape[2:]), weight[0].numel()
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    x = functional.pad(x, [left, right, top, bottom]) if top or left or bottom or right else x
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    rows, across = (
        (size - dilation * (width - 1) - 1) // stride + 1
        for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    )
    wanted = max(MIN_SAMPLES, SAMPLES_PER_INPUT * k) / images
    skip = max(1, math.floor(math.sqrt(rows * across / wanted)))
    steps = [stride * skip for stride in strides]
    # Always from the corner on, the padded border would count for more than its share.
    start = turn % min(skip, rows, across)
    x = x[:, :, start * strides[0] :, start * strides[1] :]
    if kernel == (1, 1):
        columns = x[:, :, :: steps[0], :: steps[1]].flatten(2)
    else:
        columns = functional.unfold(x, kernel, dilations, 0, steps)
    return columns.unflatten(1, (groups, k)).permute(1, 2, 0, 3).flatten(2)
