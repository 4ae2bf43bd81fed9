"""Cost of one image in an ONNX graph, by shape inference."""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx
import onnx.inliner

from optkit.measure.counts import Cost, Layer, tally
from optkit.measure.formula import LayerShape

Shape = tuple[int | None, ...]

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
) | {onnx.TensorProto.FLOAT8E4M3FN}
# Activations that runtimes apply while a layer writes: what they make is written, not what goes in.
APPLIED_WHILE_WRITING = frozenset(
    {"Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh"}
)
INTEGERS = {
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "int8",
    onnx.TensorProto.INT4: "int4",
    onnx.TensorProto.UINT4: "int4",
}
FLOATS = {
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.FLOAT8E4M3FN: "fp8",
}
HALF_A_BYTE = frozenset({onnx.TensorProto.INT4, onnx.TensorProto.UINT4})


def onnx_cost(model: onnx.ModelProto, size: int) -> Cost:
    """Count a graph, quantised or not; `size` stands in for open image axes."""
    graph = infer_shapes(model, size)
    tensors = _Tensors(graph)
    layers, unknown, layer_shapes = [], [], {}
    for node in graph.node:
        if node.op_type not in COUNTED:
            continue
        name = node.name or node.output[0]
        macs = _node_macs(node, tensors.shapes)
        if macs is None:
            unknown.append(name)
            continue
        if tensors.stored(node.input[COUNTED[node.op_type][1]]) in tensors.constants:
            layer_shapes[name] = _node_shape(node, tensors.shapes, tensors.batch)
        layers.append(tensors.layer(node, name, macs))
    return Cost(
        macs=sum(layer.macs for layer in layers),
        params=sum(tensors.params.values()),
        activations=sum(layer.activations for layer in layers),
        weight_bytes=sum(layer.weight_bytes for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        layers=layers,
        not_counted=tally(node.op_type for node in graph.node if node.op_type not in COUNTED),
        shapes=layer_shapes,
        unknown=unknown,
    )


class _Tensors:
    """Shapes and types of a graph's tensors, and in which form the file stores them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = _constants(graph)
        values = (*graph.input, *graph.value_info, *graph.output)
        self.shapes = _shapes(values, self.constants)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self.batch = self.shapes[_image(graph).name][0] or 1
        not_params = {
            node.input[i]
            for node in graph.node
            for i in NOT_PARAMS.get(node.op_type, ())
            if i < len(node.input)
        }
        self.params = {
            name: math.prod(tensor.dims)
            for name, tensor in self.constants.items()
            if name not in not_params and tensor.data_type in PARAM_TYPES and math.prod(tensor.dims) > 1
        }
        self._quantised = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def stored(self, name: str) -> str:
        """The tensor that is read for an operand: what is dequantised, where it is."""
        return self._quantised.get(name, name)

    def _written(self, name: str) -> str:
        """The tensor that is written for an output: what the activation and the quantisation behind it make."""
        readers = self._readers.get(name, [])
        if len(readers) == 1 and readers[0].op_type in APPLIED_WHILE_WRITING:
            return self._written(readers[0].output[0])
        if sorted(reader.op_type for reader in readers) == ["Mul", "Sigmoid"]:  # SiLU: x · sigmoid(x)
            sigmoid, product = sorted(readers, key=lambda reader: reader.op_type, reverse=True)
            if sigmoid.output[0] in product.input:
                return self._written(product.output[0])
        if readers and all(reader.op_type == "QuantizeLinear" for reader in readers):
            return readers[0].output[0]
        return name

    def _bytes(self, name: str) -> int:
        elements, kind = _size(self.shapes.get(name, ())), self.types.get(name, onnx.TensorProto.FLOAT)
        if kind in HALF_A_BYTE:
            return (elements + 1) // 2
        return elements * onnx.helper.tensor_dtype_to_np_dtype(kind or onnx.TensorProto.FLOAT).itemsize

    def layer(self, node: onnx.NodeProto, name: str, macs: int) -> Layer:
        """A counted node whose tensors have known shapes; `macs` are those of the whole batch."""
        first, second = (self.stored(node.input[position]) for position in COUNTED[node.op_type])
        weights = {name for name in map(self.stored, node.input) if name in self.params}
        moved = [name for name in (first, second) if name not in self.constants]
        moved.append(self._written(node.output[0]))
        return Layer(
            name=name,
            type=node.op_type,
            macs=macs // self.batch,
            params=sum(self.params[name] for name in weights),
            activations=_size(self.shapes[node.output[0]]) // self.batch,
            weight_bytes=sum(map(self._bytes, weights)),
            activation_bytes=sum(map(self._bytes, moved)) // self.batch,
            precision=_precision(self.types.get(first, 0), self.types.get(second, 0)),
        )


def _precision(first: int, second: int) -> str:
    """In which precision two operands of these types are multiplied: as integers where both are some."""
    if first in INTEGERS and second in INTEGERS:
        return INTEGERS[first]
    return FLOATS.get(second if first in INTEGERS else first, "fp32")


def infer_shapes(model: onnx.ModelProto, size: int) -> onnx.GraphProto:
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


def _shapes(
    values: Iterable[onnx.ValueInfoProto], constants: dict[str, onnx.TensorProto]
) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        value.name: tuple(d.dim_value or None for d in value.type.tensor_type.shape.dim)
        for value in values
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
    is_vector = len(weight) == 1  # a product with one has a single channel, which its output does not show
    out_channels = _size(out[1:2] if is_conv else () if is_vector else out[-1:])
    in_channels = _size(x[1:2]) if is_conv else _size(weight[-2:]) // out_channels
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


def _size(shape: Shape) -> int:
    return math.prod(axis for axis in shape if axis is not None)
