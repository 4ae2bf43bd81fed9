"""An ONNX classifier as a torch module, in which the activations and weights of a plan are rounded to INT8.

What is fitted here — roundings, biases, ranges, weights — is written back into the ONNX graph, so the file has the
placement of the plan whatever was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from optkit.graph.qdq import QdqPlan
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_operators import OPERATORS, Operator, Unsupported, unsupported_operators

Values = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """One node: its operator, what it reads and what it makes."""

    name: str
    op_type: str
    run: Operator
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    output: str


class GraphModule(nn.Module):
    """The graph of `model`, its FP32 initializers as parameters named by `parameter_names`.

    With `plan` and `scales` the tensors of the plan's edges are rounded where its nodes read them, and weights
    with an entry in `weight_scales` (node → scale per output channel) are rounded too; gradients pass straight
    through. Unsupported for operators without a torch form, and for a batch size that is written into a shape.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        plan: QdqPlan | None = None,
        scales: dict[str, tuple[np.float32, int]] | None = None,
        weight_scales: dict[str, NDArray[np.float32]] | None = None,
    ) -> None:
        super().__init__()
        if unknown := unsupported_operators(model):
            raise Unsupported(f"no torch form of {', '.join(unknown)}")
        view = GraphView(model)
        self.plan, self.scales = plan, scales or {}
        self.input, (self.output,) = view.inputs[0], view.outputs
        self.steps = [_step(node) for node in view.nodes]
        self.last_use = {name: index for index, step in enumerate(self.steps) for name in step.inputs}
        self.constants: Values = {}
        self.parameter_names: dict[str, str] = {}
        for name, tensor in view.constants.items():
            value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            if value.dtype == torch.float32 and value.ndim:
                self.parameter_names[name] = f"p{len(self.parameter_names)}"
                self.register_parameter(self.parameter_names[name], nn.Parameter(value))
            else:
                self.constants[name] = value
        self.weight_grids: dict[str, tuple[Tensor, int]] = {}
        self.learning: Values = {}  # by node: weights to use as they are, in the place of their parameters
        for node in view.nodes:
            axis = view.weight_axis(node)
            if weight_scales and node.name in weight_scales and axis is not None:
                self.set_weight_grid(node.name, weight_scales[node.name], axis)
        if any(step.op_type == "Reshape" and self._fixes_batch(step) for step in self.steps):
            raise Unsupported("the batch size is written into a shape")

    def _fixes_batch(self, step: Step) -> bool:
        shape = self.constants.get(step.inputs[1])
        return shape is None or int(shape[0]) > 0

    def parameter(self, name: str) -> nn.Parameter:
        """The parameter of the initializer `name`."""
        return self.get_parameter(self.parameter_names[name])

    def set_weight_grid(self, node: str, scales: NDArray[np.float32], axis: int) -> None:
        """Let the weight of `node` be rounded to a grid with one scale per index of `axis`."""
        self.weight_grids[node] = (torch.from_numpy(scales), axis)

    def weight(self, step: Step) -> Tensor:
        """The weight of a Conv, Gemm or MatMul as it is used: rounded, where it has a grid."""
        if step.name in self.learning:
            return self.learning[step.name]
        parameter = self.parameter(step.inputs[1])
        if step.name not in self.weight_grids:
            return parameter
        scales, axis = self.weight_grids[step.name]
        scales = scales.to(parameter.device)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(parameter, scales, zeros, axis, -127, 127)

    def initializers(self) -> dict[str, NDArray[np.float32]]:
        """Every parameter by the name of its initializer."""
        return {name: self.parameter(name).detach().cpu().numpy() for name in self.parameter_names}

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, height, width) → logits (n, classes)."""
        values = {self.input: pixels.to(memory_format=torch.channels_last) if pixels.ndim == 4 else pixels}
        self.run(values, range(len(self.steps)), keep=frozenset({self.output}))
        return values[self.output]

    def run(self, values: Values, indices: Iterable[int], keep: Set[str] = frozenset()) -> None:
        """Execute steps on `values`, which loses what no later step reads unless it is in `keep`."""
        rounded: Values = {}
        for index in indices:
            step = self.steps[index]
            values[step.output] = step.run(step.attributes, self.operands(step, values, rounded))
            for name in step.inputs:
                if self.last_use.get(name) == index and name not in keep:
                    values.pop(name, None)
                    rounded.pop(name, None)

    def operands(self, step: Step, values: Values, rounded: Values) -> list[Tensor | None]:
        """What `step` reads; `rounded` caches activations that several steps read."""
        return [self.operand(step, position, values, rounded) for position in range(len(step.inputs))]

    def peak_values(self, image: Tensor) -> int:
        """The most values that are alive at once while one image (1, 3, height, width) passes through."""
        values, peak = {self.input: image}, 0
        with torch.no_grad():
            for index in range(len(self.steps)):
                before = sum(value.numel() for value in values.values())
                self.run(values, [index], frozenset({self.output}))
                peak = max(peak, before + values[self.steps[index].output].numel())
        return peak

    def operand(
        self, step: Step, position: int, values: Values, rounded: Values | None = None
    ) -> Tensor | None:
        """One of the tensors that `step` reads, rounded where the plan says so."""
        rounded = {} if rounded is None else rounded
        name = step.inputs[position]
        if not name:
            return None
        if name in self.parameter_names:
            is_weight = position == 1 and step.name in self.weight_grids
            return self.weight(step) if is_weight else self.parameter(name)
        if name in self.constants:
            return self.constants[name]
        if self.plan is not None and step.name in self.plan.edges.get(name, ()):
            if name not in rounded:
                scale, zero = self.scales[name]
                grid = self.plan.grid
                rounded[name] = torch.fake_quantize_per_tensor_affine(
                    values[name], float(scale), zero, grid.low_code, grid.high_code
                )
            return rounded[name]
        return values[name]


def _step(node: onnx.NodeProto) -> Step:
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    return Step(
        node.name, node.op_type, OPERATORS[node.op_type], attributes, tuple(node.input), node.output[0]
    )
