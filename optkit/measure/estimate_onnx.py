"""An ONNX graph → the operations that the network it was exported from runs in PyTorch.

An export folds batch normalisation into convolutions and takes activations and attention apart; here they are put
together again, so that a graph and its torch module are counted alike. Quantisation is looked through. What cannot
be known: whether a convolution had a batch normalisation (one is put back unless the result is a
single pixel, goes to a reshape as a patch embedding does, or is normalised over channels before or after), and
whether PyTorch would run attention in one kernel (it is taken for one).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import onnx

from optkit.core.errors import InputError
from optkit.measure.estimate_ops import Op, convolution
from optkit.measure.onnx_cost import infer_shapes

Shape = tuple[int, ...]
Reads = tuple[tuple[int, int], ...]

# Nodes that move no values where the weights are floats.
VIEWS = {
    *(
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Cast",
        "Split",
        "Slice",
        "Transpose",
        "Expand",
    ),
    *("Dropout", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
}
KINDS = {
    **dict.fromkeys(("Relu", "Clip", "LeakyRelu", "PRelu"), "relu"),
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Tanh"), "sigmoid"),
    **dict.fromkeys(("Add", "Sub", "Sum"), "add"),
    **dict.fromkeys(("Mul", "Div", "Pow", "Exp", "Sqrt", "Max", "Min", "Sin", "Cos"), "mul"),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"), "reduce"),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalMaxPool"), "pool"),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), "layer_norm"),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization"), "group_norm"),
    "BatchNormalization": "batch_norm",
    "Softmax": "softmax",
    "Gelu": "gelu",
    "Erf": "gelu",
    "HardSwish": "hardswish",
    "Swish": "silu",
}
COPIES = frozenset(
    [
        "Concat",
        "Slice",
        "Split",
        "Gather",
        "Pad",
        "Transpose",
        "Resize",
        "Upsample",
        "Tile",
        "Expand",
        "Where",
        "ScatterND",
        "ScatterElements",
        "GatherElements",
        "GatherND",
        "DepthToSpace",
        "SpaceToDepth",
        "Cast",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Neg",
        "Abs",
        "Not",
        "Equal",
        "Reciprocal",
    ]
)
GATES = {"Sigmoid": "silu", "HardSigmoid": "hardswish"}  # x·gate(x) is one activation
CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}  # and where their weight is
PRODUCTS = {"Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}


def onnx_ops(model: onnx.ModelProto, size: int) -> list[Op]:
    """Operations on one image of `size` pixels; InputError for a graph whose shapes cannot be inferred."""
    reader = _Reader(model, size)
    ops = reader.read()
    return ops if reader.batch == 1 else [_of_one(op, reader.batch) for op in ops]


def _of_one(op: Op, batch: int) -> Op:
    """What an operation on a batch is for one image."""
    reads = tuple((tensor, count // batch) for tensor, count in op.reads)
    return replace(op, reads=reads, writes=(op.writes[0], op.writes[1] // batch), macs=op.macs // batch)


class _Reader:
    """Walks the nodes in order. `_number` maps a tensor that comes from the image to the operation that wrote
    it, of which it may be a view."""

    def __init__(self, model: onnx.ModelProto, size: int) -> None:
        graph = infer_shapes(model, size)
        self._nodes = list(graph.node)
        values = (*graph.input, *graph.value_info, *graph.output)
        self._shapes: dict[str, Shape] = {
            value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in values
            if all(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        }
        self._constants: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        image = next(value for value in graph.input if value.name not in self._constants)
        self.batch = self._shapes[image.name][0]
        self._number = {image.name: 0}
        self._ops: dict[int, Op] = {}
        self._makers = {name: node for node in self._nodes for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self._nodes:
            for name in dict.fromkeys(node.input):
                self._readers[name].append(node)
        self._is_folded = all(node.op_type != "BatchNormalization" for node in self._nodes)
        self._attention, self._absorbed = self._find_attention()

    def read(self) -> list[Op]:
        """Every operation that depends on the image."""
        for node in self._nodes:
            inputs = [name for name in node.input if name in self._number]
            if node.op_type == "Shape":
                continue
            if not inputs:
                self._pass_constant(node)
            elif node.output[0] in self._attention:
                self._attend(node)
            elif self._is_view(node, inputs):
                for name in node.output:
                    self._number[name] = self._number[inputs[0]]
            elif not self._is_gated(node, inputs):
                self._operation(node, inputs)
        return list(self._ops.values())

    def _pass_constant(self, node: onnx.NodeProto) -> None:
        """What comes from constants alone, as a dequantised weight, is a constant."""
        source = next((self._constants[name] for name in node.input if name in self._constants), ())
        for name in node.output:
            self._constants[name] = self._shapes.get(name, source)

    def _shape(self, name: str) -> Shape:
        shape = self._shapes.get(name) or self._constants.get(name)
        if shape is None:
            raise InputError(
                f"The shape of the tensor {name!r} cannot be found.",
                why="The graph computes it from data.",
                hint="Export the network with fixed shapes, or estimate its checkpoint.",
            )
        return shape

    def _is_view(self, node: onnx.NodeProto, inputs: Sequence[str]) -> bool:
        """Whether a node moves nothing where PyTorch runs the network: a bias is part of its product."""
        if node.op_type in VIEWS or node.output[0] in self._absorbed:
            return True
        if not self._has_constant(node, 1):
            return False
        maker = self._ops.get(self._number[inputs[0]])
        is_bias = node.op_type == "Add" and maker is not None and maker.kind == "linear"
        users = self._users(node.output[0])
        is_around_erf = (
            node.op_type in ("Add", "Mul", "Div")
            and self._has_constant(node, 0)
            and (any(user.op_type == "Erf" for user in users) or (maker is not None and maker.kind == "gelu"))
        )
        return is_bias or is_around_erf

    def _has_constant(self, node: onnx.NodeProto, axes: int) -> bool:
        """Whether an operand is a constant of at most that many axes longer than 1."""
        shapes = [self._constants[name] for name in node.input if name in self._constants]
        return any(sum(axis > 1 for axis in shape) <= axes for shape in shapes)

    def _is_gated(self, node: onnx.NodeProto, inputs: Sequence[str]) -> bool:
        """Let x·gate(x) be one activation, in the gate's place."""
        if node.op_type != "Mul" or len(inputs) < 2:
            return False
        for name, other in (inputs, reversed(inputs)):
            number, gate = self._number[name], self._maker(name)
            op = self._ops.get(number)
            if op and gate and op.kind in ("sigmoid", "gelu") and op.reads[0][0] == self._number[other]:
                self._ops[number] = replace(op, kind=GATES.get(gate.op_type, op.kind))
                self._number[node.output[0]] = number
                return True
        return False

    def _maker(self, name: str) -> onnx.NodeProto | None:
        """The node that computed a tensor, behind its views."""
        while (maker := self._makers.get(name)) is not None and maker.op_type in VIEWS and maker.input:
            name = maker.input[0]
        return maker

    def _users(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that compute with a tensor, behind its views."""
        found = []
        for reader in self._readers[name]:
            if reader.op_type in VIEWS:
                found += [user for output in reader.output for user in self._users(output)]
            elif reader.op_type != "Shape":
                found.append(reader)
        return found

    def _find_attention(self) -> tuple[dict[str, list[str]], set[str]]:
        """Output of every attention → its query, key and value; and what lies between them."""
        found, absorbed = {}, set()
        for softmax in (node for node in self._nodes if node.op_type == "Softmax"):
            chain, first = [softmax], self._maker(softmax.input[0])
            while first is not None and first.op_type in ("Add", "Mul", "Div", "Where"):
                chain.append(first)
                makers = [self._maker(name) for name in first.input]
                first = next((maker for maker in makers if maker is not None), None)
            products = [user for user in self._users(softmax.output[0]) if user.op_type == "MatMul"]
            if first is None or first.op_type != "MatMul" or not products:
                continue
            scales = [maker for name in first.input if (maker := self._maker(name)) is not None]
            chain += [first, *(node for node in scales if node.op_type in ("Mul", "Div"))]
            absorbed |= {node.output[0] for node in chain}
            found[products[0].output[0]] = [*first.input, products[0].input[1]]
        return found, absorbed

    def _attend(self, node: onnx.NodeProto) -> None:
        names = self._attention[node.output[0]]
        query, key, value = (self._shape(name) for name in names)
        reads = tuple((self._number.get(name, 0), math.prod(self._shape(name))) for name in names)
        depth = query[-1] + value[-1]
        rows = math.prod(query[:-1])
        op = Op("attention", reads, (0, rows * value[-1]), macs=rows * key[-1] * depth)
        self._add(node, replace(op, width=key[-1], depth=depth))

    def _values(self, name: str) -> int:
        """How many values a tensor has: of one whose shape is not known, as many as what it is a view of."""
        if name in self._shapes:
            return math.prod(self._shapes[name])
        op = self._ops.get(self._number[name])
        return op.writes[1] if op else math.prod(self._shape(name))

    def _operation(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        reads = tuple((self._number[name], self._values(name)) for name in inputs)
        if node.op_type in CONVOLUTIONS:
            self._convolve(node, reads)
        elif node.op_type in PRODUCTS:
            self._multiply(node, reads)
        else:
            shape = self._shapes.get(node.output[0])
            written = max(count for _, count in reads) if shape is None else math.prod(shape)
            self._add(
                node,
                Op(
                    KINDS.get(node.op_type, "copy"),
                    reads,
                    (0, written),
                    promotes=self._has_parameter(node),
                    unknown="" if node.op_type in KINDS or node.op_type in COPIES else node.op_type,
                ),
            )

    def _has_parameter(self, node: onnx.NodeProto) -> bool:
        constants = [self._constants[name] for name in node.input if name in self._constants]
        return node.op_type in ("Add", "Sub", "Mul", "Div", "Concat") and any(
            math.prod(shape) > 1 for shape in constants
        )

    def _convolve(self, node: onnx.NodeProto, reads: Reads) -> None:
        image, weight = (self._shape(node.input[i]) for i in (0, CONVOLUTIONS[node.op_type]))
        output = self._shape(node.output[0])
        groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
        self._add(node, convolution(image, weight, output, groups, reads[:1], (0, math.prod(output))))
        if self._is_folded and self._had_batch_norm(node, output):
            count = math.prod(output)
            self._add(node, Op("batch_norm", ((self._number[node.output[0]], count),), (0, count)))

    def _had_batch_norm(self, node: onnx.NodeProto, output: Shape) -> bool:
        before, after = self._maker(node.input[0]), self._users(node.output[0])
        is_embedding = all(reader.op_type in VIEWS for reader in self._readers[node.output[0]])
        is_normalised = any(other.op_type == "LayerNormalization" for other in (before, *after) if other)
        return math.prod(output[2:]) > 1 and not is_embedding and not is_normalised

    def _multiply(self, node: onnx.NodeProto, reads: Reads) -> None:
        second = node.input[PRODUCTS[node.op_type]]
        if second in self._number:
            first, second = (self._shape(name) for name in (node.input[0], second))
            depth, width = first[-1], second[-1]
            rows = math.prod(first[:-1])
            op = Op("attention", reads, (0, rows * width), macs=rows * depth * width)
        else:
            is_turned = any(entry.name == "transB" and entry.i for entry in node.attribute)
            depth, width = reversed(self._shape(second)) if is_turned else self._shape(second)
            count = reads[0][1] // depth * width
            op = Op("linear", reads, (0, count), macs=count * depth, weights=depth * width)
        self._add(node, replace(op, width=width, depth=depth))

    def _add(self, node: onnx.NodeProto, op: Op) -> None:
        """Note an operation that writes the outputs of `node`."""
        number = len(self._ops) + 1
        self._ops[number] = replace(op, writes=(number, op.writes[1]))
        self._number |= dict.fromkeys(node.output, number)
