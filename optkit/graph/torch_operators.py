"""ONNX operators as torch functions, and what has no such form here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from optkit.graph.qdq_view import attribute

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
