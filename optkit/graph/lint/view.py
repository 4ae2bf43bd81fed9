"""What lint rules ask about a graph: where its Q/DQ are, and how the network looks without them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from optkit.graph.lint.execution import Execution, execution_of
from optkit.graph.qdq_view import GraphView, attribute

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})
LEAST_RANK = {"Conv": 3, "ConvTranspose": 3}
CODECS = frozenset({"QuantizeLinear", "DequantizeLinear"})
STANDARD = ("", "ai.onnx")
# Numbers that a Constant node may hold beside a tensor.
NUMBERS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@dataclass(frozen=True)
class FileFacts:
    """What a file says of itself beside its graph; `external` names the tensors stored in other files."""

    asked_opset: int | None = None
    external: tuple[str, ...] = ()


@dataclass(frozen=True)
class Codec:
    """One QuantizeLinear or DequantizeLinear; `scale` and `zero` are None where they are computed.

    `type` is the ONNX type of the codes, UNDEFINED where the file leaves it to be inferred; `origin` is the tensor
    in floating point that they stand for.
    """

    node: onnx.NodeProto
    scale: NDArray[Any] | None
    zero: NDArray[Any] | None
    type: int
    axis: int
    origin: str


class LintGraph:
    """An index of a valid graph. `plain` is the same network with every Q/DQ taken out."""

    def __init__(self, model: onnx.ModelProto, target: str, facts: FileFacts) -> None:
        self.model, self.target, self.facts = model, target, facts
        self.view = GraphView(model)
        self.without_values: set[str] = set()  # constants whose values are stored sparsely, or are text
        self.tensors = self._constants()
        self._origins: dict[str, str] = {}
        self._by_output: dict[str, Codec] = {}
        self.codecs: list[Codec] = []
        for node in self.view.nodes:  # in topological order
            if is_codec(node):
                self._origins[node.output[0]] = self.origin(node.input[0])
                self._by_output[node.output[0]] = self._codec(node)
                self.codecs.append(self._by_output[node.output[0]])
            elif node.domain in STANDARD and any(node.input[:1]) and node.input[0] in self._by_output:
                self._look_through(node)
        self.plain = self._without_codecs()

    @cached_property
    def execution(self) -> Execution:
        """What the target's runtime makes of the file."""
        return execution_of(self.model, self.target)

    @property
    def opset(self) -> int:
        """Version of the standard operator set, 0 when the file imports none."""
        versions = [entry.version for entry in self.model.opset_import if entry.domain in STANDARD]
        return max(versions, default=0)

    @property
    def is_quantized(self) -> bool:
        """Whether the file holds any Q/DQ."""
        return bool(self.codecs)

    def value(self, name: str) -> NDArray[Any] | None:
        """Value of a constant, None for anything computed or not a number."""
        if name not in self.tensors or name in self.without_values:
            return None
        value = numpy_helper.to_array(self.tensors[name])
        return None if value.dtype.kind in "OSUc" else value

    def origin(self, tensor: str) -> str:
        """The tensor that `tensor` stands for: what comes before all Q/DQ in front of it."""
        return self._origins.get(tensor, tensor)

    def original(self, plain_node: onnx.NodeProto) -> onnx.NodeProto:
        """The node of the real graph behind one of `plain`."""
        return self.view.producer[next(name for name in plain_node.output if name)]

    def decoder(self, node: onnx.NodeProto, index: int) -> Codec | None:
        """The DequantizeLinear that a plain node reads input `index` from."""
        real = self.original(node)
        codec = self._by_output.get(real.input[index]) if index < len(real.input) else None
        return codec if codec and codec.node.op_type == "DequantizeLinear" else None

    def reads_codes(self, node: onnx.NodeProto) -> bool:
        """Whether any activation comes to `node` through Q/DQ."""
        return any(
            self.decoder(node, index)
            for index, name in enumerate(node.input)
            if name and self.origin(name) not in self.tensors
        )

    def is_quantized_node(self, node: onnx.NodeProto) -> bool:
        """Whether it can run in integers: activations from Q/DQ, and weights too where it has them."""
        weights = node.op_type not in WEIGHTED or self.decoder(node, 1) is not None
        return weights and self.reads_codes(node)

    def weighted(self) -> Iterator[onnx.NodeProto]:
        """Plain nodes with constant weights."""
        for node in self.plain.nodes:
            weight = self.tensors.get(node.input[1]) if node.op_type in WEIGHTED else None
            if weight is not None and len(weight.dims) >= LEAST_RANK.get(node.op_type, 2):
                yield node

    def weight_axis(self, node: onnx.NodeProto) -> int:
        """Axis of output channels in the weights of a plain node."""
        if node.op_type in ("Conv", "ConvTranspose"):
            return 0 if node.op_type == "Conv" else 1
        if node.op_type == "Gemm" and attribute(node, "transB", 0):
            return 0
        return len(self.tensors[node.input[1]].dims) - 1

    def pairs(self) -> Iterator[Codec]:
        """One Codec a pair: the Q, or the DQ of weights that are stored as integers."""
        for codec in self.codecs:
            if codec.node.op_type == "QuantizeLinear" or codec.node.input[0] not in self._by_output:
                yield codec

    def activation_codecs(self) -> Iterator[Codec]:
        """Q/DQ of tensors that are computed from the image."""
        return (codec for codec in self.codecs if codec.origin not in self.tensors)

    def _look_through(self, node: onnx.NodeProto) -> None:
        """Take an Identity behind Q/DQ, or a Transpose or Reshape of weights, for part of them: runtimes fold it."""
        source, output = node.input[0], node.output[0]
        codec, origin = self._by_output[source], self.origin(source)
        if node.op_type == "Identity":
            self._origins[output], self._by_output[output] = origin, codec
            return
        weight = self.value(origin)
        if weight is None or not weight.ndim or attribute(codec.node, "block_size", 0):
            return
        axis = codec.axis % weight.ndim
        moved: tuple[NDArray[Any], int | None] | None
        if node.op_type == "Transpose":
            moved = _transposed(weight, axis, attribute(node, "perm", None))
        elif node.op_type == "Reshape" and len(node.input) == 2 and not attribute(node, "allowzero", 0):
            moved = _reshaped(weight, axis, self.value(node.input[1]))
        else:
            return
        is_one_scale = codec.scale is not None and codec.scale.size == 1
        if moved is not None and (moved[1] is not None or is_one_scale):
            values, axis = moved[0], moved[1] or 0
            self._origins[output] = output
            self.tensors[output] = numpy_helper.from_array(values, output)
            self._by_output[output] = replace(codec, axis=axis, origin=output)

    def _codec(self, node: onnx.NodeProto) -> Codec:
        zero_name = node.input[2] if len(node.input) > 2 else ""
        source = node.input[0]
        axis = attribute(node, "axis", 1)
        return Codec(
            node=node,
            scale=self.value(node.input[1]),
            zero=self.value(zero_name) if zero_name else np.zeros((), np.int8),
            type=self._type_of_codes(node, zero_name),
            axis=axis if isinstance(axis, int) else 1,
            origin=self.origin(source),
        )

    def _type_of_codes(self, node: onnx.NodeProto, zero_name: str) -> int:
        source = node.input[0]
        if zero_name in self.tensors:
            return self.tensors[zero_name].data_type
        if node.op_type == "DequantizeLinear":  # its `output_dtype` is that of the floats
            if source in self.tensors:
                return self.tensors[source].data_type
            return self._by_output[source].type if source in self._by_output else TensorProto.UNDEFINED
        default = TensorProto.UNDEFINED if zero_name else TensorProto.UINT8
        return attribute(node, "output_dtype", 0) or default

    def _constants(self) -> dict[str, TensorProto]:
        """Initializers and Constant nodes."""
        found = dict(self.view.constants)
        for sparse in self.model.graph.sparse_initializer:
            found[sparse.values.name] = self._shape_alone(sparse.values.name, sparse)
        for node in self.view.nodes:
            if node.op_type != "Constant" or node.domain not in STANDARD:
                continue
            name = node.output[0]
            for entry in node.attribute:  # one of them
                if entry.name == "value":
                    found[name] = entry.t
                elif entry.name in NUMBERS:
                    numbers = np.array(onnx.helper.get_attribute_value(entry), NUMBERS[entry.name])
                    found[name] = numpy_helper.from_array(numbers)
                else:
                    found[name] = self._shape_alone(name, entry.sparse_tensor)
        return found

    def _shape_alone(self, name: str, sparse: onnx.SparseTensorProto) -> TensorProto:
        self.without_values.add(name)
        return TensorProto(dims=sparse.dims, data_type=sparse.values.data_type)

    def _without_codecs(self) -> GraphView:
        """A view in which axes and shapes keep their values, and weights their shapes alone."""
        plain = onnx.ModelProto()
        plain.graph.input.extend(self.model.graph.input)
        plain.graph.output.extend(self.model.graph.output)
        for name, tensor in self.tensors.items():
            if tensor.data_type == TensorProto.INT64 and name not in self.without_values:  # axes and shapes
                copy = plain.graph.initializer.add()
                copy.CopyFrom(tensor)
                copy.name = name
            else:
                plain.graph.initializer.add(name=name, dims=tensor.dims, data_type=TensorProto.FLOAT)
        for node in self.view.nodes:
            is_transparent = bool(node.output) and node.output[0] in self._origins
            if not is_transparent and node.op_type != "Constant" and any(node.output):
                kept = plain.graph.node.add()
                kept.CopyFrom(node)
                if node.domain not in STANDARD:  # may have the name of a standard operator, and be another
                    kept.op_type = f"{node.domain}.{node.op_type}"
                kept.input[:] = [self.origin(name) for name in node.input]
        view = GraphView(plain)
        view.outputs |= {self.origin(name) for name in view.outputs}
        return view


def is_codec(node: onnx.NodeProto) -> bool:
    """Whether it is a QuantizeLinear or DequantizeLinear, ONNX's own or ONNX Runtime's of the same name."""
    return (
        node.op_type in CODECS
        and node.domain in (*STANDARD, "com.microsoft")
        and len(node.input) > 1
        and bool(node.output[:1])
    )


def _transposed(
    weight: NDArray[Any], axis: int, order: Sequence[int] | None
) -> tuple[NDArray[Any], int] | None:
    """The weight with its axes in another order, and where `axis` is then; None for an order that is none."""
    order = list(range(weight.ndim)[::-1] if order is None else order)
    if sorted(order) != list(range(weight.ndim)):
        return None
    return weight.transpose(order), order.index(axis)


def _reshaped(
    weight: NDArray[Any], axis: int, shape: NDArray[Any] | None
) -> tuple[NDArray[Any], int | None] | None:
    """The weight in another shape, and where `axis` is then, None where it falls apart; None for a wrong shape."""
    if shape is None or shape.dtype != np.int64 or shape.ndim != 1:
        return None
    lengths = [int(size or weight.shape[index]) for index, size in enumerate(shape[: weight.ndim])]
    try:
        values = weight.reshape([*lengths, *shape[weight.ndim :].tolist()])
    except ValueError:
        return None
    before = math.prod(weight.shape[:axis])
    for index, size in enumerate(values.shape):
        if size == weight.shape[axis] and math.prod(values.shape[:index]) == before:
            return values, index
    return values, None
