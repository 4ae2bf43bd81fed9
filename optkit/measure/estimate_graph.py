"""An ONNX graph as the operations of a network are looked for in it: shapes, constants, and neighbours behind views.

What moves no values where the weights are floats is a view here, and so is quantisation.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import onnx

from optkit.core.errors import InputError
from optkit.measure.onnx_cost import infer_shapes

Shape = tuple[int, ...]
VIEWS = frozenset(
    (
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Split", "Slice"),
        *("Identity", "Dropout", "Cast"),
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    )
)
BETWEEN = ("Add", "Mul", "Div", "Where")  # a score and its softmax: mask and scale


class OnnxGraph:
    """The nodes in their order, and what is known of their tensors by name.

    `shapes` has those that could be inferred; `constants` are what does not depend on `image`, the input, as a
    dequantised weight.
    """

    def __init__(self, model: onnx.ModelProto, size: int) -> None:
        graph = infer_shapes(model, size)
        self.nodes = list(graph.node)
        values = (*graph.input, *graph.value_info, *graph.output)
        self.shapes: dict[str, Shape] = {
            value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in values
            if value.type.tensor_type.HasField("shape")
            and all(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        }
        self.constants: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.image = next(value.name for value in graph.input if value.name not in self.constants)
        self._add_computed_constants()
        self._makers = {name: node for node in self.nodes for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._readers[name].append(node)

    def _add_computed_constants(self) -> None:
        from_image = {self.image}
        for node in self.nodes:
            if node.op_type == "Shape":
                continue
            if not from_image.isdisjoint(node.input):
                from_image |= set(node.output)
                continue
            source = next((self.constants[name] for name in node.input if name in self.constants), ())
            self.constants |= {name: self.shapes.get(name, source) for name in node.output}

    def shape(self, name: str) -> Shape:
        """The shape of a tensor; InputError where it is not known."""
        shape = self.shapes.get(name) or self.constants.get(name)
        if shape is None:
            raise InputError(
                f"The shape of the tensor {name!r} cannot be found.",
                why="The graph computes it from data.",
                hint="Export the network with fixed shapes, or estimate its checkpoint.",
            )
        return shape

    def constants_of(self, node: onnx.NodeProto) -> list[Shape]:
        """The shapes of the operands that do not depend on the image."""
        return [self.constants[name] for name in node.input if name in self.constants]

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that computed a tensor, behind its views."""
        while (maker := self._makers.get(name)) is not None and maker.op_type in VIEWS and maker.input:
            name = maker.input[0]
        return maker

    def users(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that compute with a tensor, behind its views."""
        found = []
        for reader in self._readers[name]:
            if reader.op_type in VIEWS:
                found += [user for output in reader.output for user in self.users(output)]
            elif reader.op_type != "Shape":
                found.append(reader)
        return found

    def is_only_viewed(self, name: str) -> bool:
        """Whether nothing computes with a tensor before it is looked at in another way."""
        return all(reader.op_type in VIEWS for reader in self._readers[name])


class Attention(NamedTuple):
    """The attentions of a graph: by output the names of query, key and value; and what is computed on the way."""

    operands: dict[str, list[str]]
    inner: set[str]


def find_attention(graph: OnnxGraph) -> Attention:
    """Every softmax between two matrix products."""
    operands, inner = {}, set()
    for softmax in (node for node in graph.nodes if node.op_type == "Softmax"):
        chain, first = [softmax], graph.maker(softmax.input[0])
        while first is not None and first.op_type in BETWEEN:
            chain.append(first)
            makers = [graph.maker(name) for name in first.input]
            first = next((maker for maker in makers if maker is not None), None)
        products = [user for user in graph.users(softmax.output[0]) if user.op_type == "MatMul"]
        if first is None or first.op_type != "MatMul" or not products:
            continue
        scales = [maker for name in first.input if (maker := graph.maker(name)) is not None]
        chain += [first, *(node for node in scales if node.op_type in ("Mul", "Div"))]
        inner |= {node.output[0] for node in chain}
        operands[products[0].output[0]] = [*first.input, products[0].input[1]]
    return Attention(operands, inner)
