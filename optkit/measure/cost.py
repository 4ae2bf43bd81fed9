"""Multiply-accumulates (MACs) and parameters of one image, for torch modules and ONNX graphs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
import onnx.inliner
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from optkit.measure.formula import LayerShape

UNIT = "multiply-accumulates (MACs) of convolutions and matrix products, batch 1; one MAC is two FLOPs"
# What no type of layer stands for, so that `Cost.not_counted` cannot name it.
NEVER_COUNTED = "sums and products of single elements (shortcuts, the scaling by squeeze-and-excitation)"
CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Cost:
    """`layers`: {"name", "type", "macs", "params"} in the order of execution; `shapes` are theirs by name, where
    the formulas apply. `not_counted` says which operations have no MACs in this count ({"Sigmoid": 49});
    `unknown` names those that should and whose shapes could not be found, so that `macs` is a lower bound when
    it is not empty."""

    macs: int
    params: int
    layers: list[dict[str, Any]]
    not_counted: dict[str, int]
    shapes: dict[str, LayerShape]
    unknown: list[str] = field(default_factory=list)

    def metrics(self) -> dict[str, int]:
        """The two totals."""
        return {"macs": self.macs, "params": self.params}


def module_cost(module: torch.nn.Module, size: int) -> Cost:
    """Count a module in eval mode by running it on shapes alone (the meta device); its weights stay."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    image = torch.empty(1, 3, size, size, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _layer_shapes(module) as layer_shapes, counter:
        torch.func.functional_call(module, shapes, image)
    flops = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    root = type(module).__name__
    leaves = {f"{root}.{name}": layer for name, layer in module.named_modules() if not any(layer.children())}
    return Cost(
        macs=flops.get("Global", 0) // 2,
        params=sum(parameter.numel() for parameter in module.parameters()),
        layers=[
            {
                "name": name.removeprefix(f"{root}."),
                "type": type(leaves[name]).__name__,
                "macs": count // 2,
                "params": sum(parameter.numel() for parameter in leaves[name].parameters()),
            }
            for name, count in flops.items()
            if name in leaves
        ],
        not_counted=_tally(
            type(layer).__name__
            for name, layer in module.named_modules()
            if f"{root}.{name}" not in flops and _does_something(layer)
        ),
        shapes=layer_shapes,
    )


def _does_something(layer: nn.Module) -> bool:
    """Whether a layer computes on its own, beside what the layers in it do: timm's normalisations hold others."""
    has_own = any(True for _ in layer.parameters(recurse=False)) or not any(layer.children())
    return has_own and not isinstance(layer, nn.Identity | nn.Dropout)


@contextmanager
def _layer_shapes(module: nn.Module) -> Iterator[dict[str, LayerShape]]:
    """Shapes of the convolutions and linear layers that run within this context, by their names."""
    found: dict[str, LayerShape] = {}

    def hook_of(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(layer: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            shape = _layer_shape(layer, args[0], output)
            if name in found:  # a layer that runs again
                shape = replace(
                    shape,
                    in_positions=shape.in_positions + found[name].in_positions,
                    out_positions=shape.out_positions + found[name].out_positions,
                )
            found[name] = shape

        return hook

    hooks = [
        layer.register_forward_hook(hook_of(name))
        for name, layer in module.named_modules()
        if isinstance(layer, CONVOLUTIONS | nn.Linear)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _layer_shape(layer: nn.Module, image: torch.Tensor, output: torch.Tensor) -> LayerShape:
    has_bias = getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Linear):
        positions = output.numel() // layer.out_features
        return LayerShape(layer.in_features, layer.out_features, 1, 1, positions, positions, has_bias)
    if not isinstance(layer, CONVOLUTIONS):
        raise TypeError(f"no formula for {type(layer).__name__}")
    return LayerShape(
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        kernel=math.prod(layer.kernel_size),
        groups=layer.groups,
        in_positions=math.prod(image.shape[2:]),
        out_positions=math.prod(output.shape[2:]),
        has_bias=has_bias,
    )


# Operators that are counted, and the positions of their two operands.
COUNTED = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "QLinearConv": (0, 3),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
}
BIAS = {"Conv": 2, "QLinearConv": 8, "Gemm": 2}  # position of the bias, where there is one
# Inputs that are scales, zero points or running statistics: not parameters.
NOT_PARAMS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "BatchNormalization": (3, 4),
}
PARAM_TYPES = frozenset(
    getattr(onnx.TensorProto, name)
    for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT4", "UINT4", "INT8", "UINT8", "INT32")
)


def onnx_cost(model: onnx.ModelProto, size: int) -> Cost:
    """Count a graph, quantised or not, by shape inference; `size` stands in for open image axes."""
    graph = _infer(model, size)
    constants = _constants(graph)
    shapes = _shapes(graph, constants)
    batch = shapes[_image(graph).name][0] or 1
    not_params = {
        node.input[i] for node in graph.node for i in NOT_PARAMS.get(node.op_type, ()) if i < len(node.input)
    }
    sizes = {
        name: math.prod(tensor.dims)
        for name, tensor in constants.items()
        if name not in not_params and tensor.data_type in PARAM_TYPES and math.prod(tensor.dims) > 1
    }
    origin = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    layers, unknown, layer_shapes = [], [], {}
    for node in graph.node:
        if node.op_type not in COUNTED:
            continue
        macs = _node_macs(node, shapes)
        if macs is None:
            unknown.append(node.name or node.output[0])
            continue
        read = {origin.get(name, name) for name in node.input}
        name = node.name or node.output[0]
        weight = node.input[COUNTED[node.op_type][1]]
        if origin.get(weight, weight) in constants:
            layer_shapes[name] = _node_shape(node, shapes, batch)
        layers.append(
            {
                "name": name,
                "type": node.op_type,
                "macs": macs // batch,
                "params": sum(sizes.get(name, 0) for name in read),
            }
        )
    return Cost(
        macs=sum(layer["macs"] for layer in layers),
        params=sum(sizes.values()),
        layers=layers,
        not_counted=_tally(node.op_type for node in graph.node if node.op_type not in COUNTED),
        shapes=layer_shapes,
        unknown=unknown,
    )


def _infer(model: onnx.ModelProto, size: int) -> onnx.GraphProto:
    """The graph with the shapes of all its tensors, for an input of batch 1 where the batch is open."""
    flat = onnx.inliner.inline_local_functions(model) if model.functions else model
    fixed = onnx.ModelProto()
    fixed.CopyFrom(flat)
    del fixed.graph.value_info[:]  # they may carry the symbolic batch
    for axis, dimension in enumerate(_image(fixed.graph).type.tensor_type.shape.dim):
        if not dimension.dim_value:
            dimension.dim_value = 1 if axis == 0 else size
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph


def _image(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    initializers = {tensor.name for tensor in graph.initializer}
    image: onnx.ValueInfoProto = next(value for value in graph.input if value.name not in initializers)
    return image


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def _shapes(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        value.name: tuple(d.dim_value or None for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return shapes | {name: tuple(tensor.dims) for name, tensor in constants.items()}


def _node_macs(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int | None:
    """Every element of the output sums over a window of the weights, or over the last axis of the input."""
    first, second = COUNTED[node.op_type]
    operands = [
        shapes.get(name) or (None,) for name in (node.input[first], node.input[second], node.output[0])
    ]
    if any(None in shape for shape in operands):
        return None
    x, weight, out = operands
    if "Conv" in node.op_type:
        return _size(out) * _size(weight[1:])  # input channels of a group × kernel
    transposed = any(entry.name == "transA" and entry.i for entry in node.attribute)
    return _size(out) * _size(x[:1] if transposed else x[-1:])


def _node_shape(node: onnx.NodeProto, shapes: dict[str, Shape], batch: int) -> LayerShape:
    """Shape of a layer with constant weights, all of whose tensors have known shapes."""
    first, second = COUNTED[node.op_type]
    x, weight, out = (shapes[name] for name in (node.input[first], node.input[second], node.output[0]))
    is_conv = "Conv" in node.op_type
    out_channels = _size(out[1:2] if is_conv else out[-1:])
    in_channels = _size(x[1:2]) if is_conv else _size(weight) // out_channels
    position = BIAS.get(node.op_type, len(node.input))
    return LayerShape(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel=_size(weight[2:]) if is_conv else 1,
        groups=next((entry.i for entry in node.attribute if entry.name == "group"), 1),
        in_positions=_size(x) // (batch * in_channels),
        out_positions=_size(out) // (batch * out_channels),
        has_bias=position < len(node.input) and bool(node.input[position]),
    )


def _tally(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _size(shape: Shape) -> int:
    return math.prod(axis for axis in shape if axis is not None)
