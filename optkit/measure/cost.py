"""Multiply-accumulates (MACs) and parameters of one image, for torch modules and ONNX graphs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx.inliner
import torch
from torch.utils.flop_counter import FlopCounterMode

UNIT = "multiply-accumulates of convolutions and matrix products, batch 1"
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Cost:
    """`layers`: {"name", "type", "macs", "params"} in the order of execution. `not_counted` says which
    operations have no MACs in this count ({"Sigmoid": 49}); `unknown` names those that should and whose
    shapes could not be found, so that `macs` is a lower bound when it is not empty."""

    macs: int
    params: int
    layers: list[dict[str, Any]]
    not_counted: dict[str, int]
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
    with torch.no_grad(), counter:
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
        not_counted=_tally(type(layer).__name__ for name, layer in leaves.items() if name not in flops),
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
    layers, unknown = [], []
    for node in graph.node:
        if node.op_type not in COUNTED:
            continue
        macs = _node_macs(node, shapes)
        if macs is None:
            unknown.append(node.name or node.output[0])
            continue
        read = {origin.get(name, name) for name in node.input}
        layers.append(
            {
                "name": node.name or node.output[0],
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


def _tally(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _size(shape: Shape) -> int:
    return math.prod(axis for axis in shape if axis is not None)
