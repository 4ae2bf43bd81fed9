"""An ONNX classifier as a torch module, in which the activations and weights of a plan are rounded to INT8.

What is fitted here — roundings, biases, ranges, weights — is written back into the ONNX graph, so the file has the
placement of the plan whatever was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from optkit.graph.qdq import QdqPlan
from optkit.graph.qdq_view import GraphView, attribute

Values = dict[str, Tensor]
Operator = Callable[[dict[str, Any], Sequence[Tensor | None]], Tensor]


def _spatial_padding(x: Tensor, attributes: dict[str, Any], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """`x` padded explicitly where both ends differ, and the symmetric padding that is left to do."""
    dims = x.ndim - 2
    pads = list(attributes.get("pads", [0] * 2 * dims))
    begins, ends = pads[:dims], pads[dims:]
    if begins == ends:
        return x, begins
    order = [side for axis in reversed(range(dims)) for side in (begins[axis], ends[axis])]
    return functional.pad(x, order, value=value), [0] * dims


def _conv(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    x, padding = _spatial_padding(x, attributes)
    dims = x.ndim - 2
    strides, dilations = attributes.get("strides", [1] * dims), attributes.get("dilations", [1] * dims)
    return functional.conv2d(x, weight, bias, strides, padding, dilations, attributes.get("group", 1))


def _gemm(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    x = x.T if attributes.get("transA", 0) else x
    weight = weight if attributes.get("transB", 0) else weight.T
    if attributes.get("alpha", 1.0) != 1.0:
        x = x * attributes["alpha"]
    if bias is not None and attributes.get("beta", 1.0) != 1.0:
        bias = bias * attributes["beta"]
    return functional.linear(x, weight, bias)


def _batch_norm(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    x, *parts = inputs
    scale, bias, mean, variance = (part.view(-1, *[1] * (x.ndim - 2)) for part in parts)
    return (x - mean) * (scale / (variance + attributes.get("epsilon", 1e-5)).sqrt()) + bias


def _clip(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    x, low, high = (*inputs, None, None)[:3]
    low = attributes.get("min") if low is None else low.item()
    high = attributes.get("max") if high is None else high.item()
    return x.clamp(low, high)


def _max_pool(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    x, padding = _spatial_padding(inputs[0], attributes, float("-inf"))
    kernel = attributes["kernel_shape"]
    strides, dilations = (attributes.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    return functional.max_pool2d(x, kernel, strides, padding, dilations, bool(attributes.get("ceil_mode", 0)))


def _average_pool(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    kernel = attributes["kernel_shape"]
    strides, ceil = attributes.get("strides", [1] * len(kernel)), bool(attributes.get("ceil_mode", 0))
    counts = bool(attributes.get("count_include_pad", 0))
    x, padding = _spatial_padding(inputs[0], attributes)
    if x is inputs[0] or counts:
        return functional.avg_pool2d(x, kernel, strides, padding, ceil, counts)
    # Padded explicitly, with values that must not count.
    inside, _ = _spatial_padding(torch.ones_like(inputs[0][:1, :1]), attributes)
    means, shares = (functional.avg_pool2d(one, kernel, strides, padding, ceil) for one in (x, inside))
    return means / shares


def _reduce_mean(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    axes = attributes.get("axes") if len(inputs) < 2 else inputs[1].tolist()
    axes = list(range(inputs[0].ndim)) if axes is None else axes
    return inputs[0].mean(axes, keepdim=bool(attributes.get("keepdims", 1)))


def _flatten(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    x, axis = inputs[0], attributes.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    return inputs[0].permute(attributes.get("perm", tuple(reversed(range(inputs[0].ndim)))))


def _reshape(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    x, shape = inputs
    wanted = [x.shape[axis] if side == 0 else side for axis, side in enumerate(shape.tolist())]
    return x.reshape(wanted)


def _axes_of(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> list[int]:
    return inputs[1].tolist() if len(inputs) > 1 else attributes.get("axes", [])


def _squeeze(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    axes = _axes_of(attributes, inputs)
    return inputs[0].squeeze(tuple(axes)) if axes else inputs[0].squeeze()


def _unsqueeze(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    x = inputs[0]
    for axis in sorted(_axes_of(attributes, inputs)):
        x = x.unsqueeze(axis)
    return x


def _pad(attributes: dict[str, Any], inputs: Sequence[Tensor | None]) -> Tensor:
    x, pads, value = (*inputs[:3], None)[:3]
    sides = pads.tolist()
    order = [side for axis in reversed(range(x.ndim)) for side in (sides[axis], sides[axis + x.ndim])]
    while order and order[-2:] == [0, 0]:  # torch reflects the last axes only
        del order[-2:]
    if len(inputs) > 3:
        raise Unsupported("no torch form of Pad along chosen axes")
    mode = attributes.get("mode", b"constant").decode()
    if mode == "constant":
        return functional.pad(x, order, value=0.0 if value is None else value.item())
    return functional.pad(x, order, {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}[mode])


OPERATORS: dict[str, Operator] = {
    "Add": lambda _, v: v[0] + v[1],
    "Sub": lambda _, v: v[0] - v[1],
    "Mul": lambda _, v: v[0] * v[1],
    "Div": lambda _, v: v[0] / v[1],
    "Relu": lambda _, v: v[0].relu(),
    "LeakyRelu": lambda a, v: functional.leaky_relu(v[0], a.get("alpha", 0.01)),
    "Sigmoid": lambda _, v: v[0].sigmoid(),
    "Tanh": lambda _, v: v[0].tanh(),
    "Erf": lambda _, v: v[0].erf(),
    "HardSigmoid": lambda a, v: (v[0] * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda _, v: functional.hardswish(v[0]),
    "Gelu": lambda a, v: functional.gelu(v[0], approximate=a.get("approximate", b"none").decode()),
    "Softmax": lambda a, v: v[0].softmax(a.get("axis", -1)),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": lambda _, v: v[0] @ v[1],
    "GlobalAveragePool": lambda _, v: v[0].mean((2, 3), keepdim=True),
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "ReduceMean": _reduce_mean,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": lambda a, v: torch.cat(list(v), a["axis"]),
    "Pad": _pad,
    "Identity": lambda _, v: v[0],
    "Dropout": lambda _, v: v[0],
}


class Unsupported(ValueError):
    """The graph holds what has no torch form here."""


def unsupported_operators(model: onnx.ModelProto) -> list[str]:
    """Operators of the graph that have no torch form here, sorted."""
    unknown = {node.op_type for node in model.graph.node if node.op_type not in OPERATORS}
    implied = {f"{node.op_type} with auto_pad" for node in model.graph.node if _implies_padding(node)}
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    other = {
        f"{node.op_type} over other than two dimensions"
        for node in model.graph.node
        if (node.op_type == "Conv" and ranks.get(node.input[1], 4) != 4)
        or (node.op_type in ("MaxPool", "AveragePool") and len(attribute(node, "kernel_shape", (1, 1))) != 2)
    }
    return sorted(unknown | implied | other)


def _implies_padding(node: onnx.NodeProto) -> bool:
    """Whether the padding has to be reckoned from the size of the image."""
    return attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")


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
