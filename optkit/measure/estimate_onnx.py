"""An ONNX graph → the operations that the network it was exported from runs in PyTorch.

An export folds batch normalisation into convolutions and takes activations and attention apart; here they are put
together again, so that a graph and its torch module are counted alike. Quantisation is looked through. What cannot
be known: whether a convolution had a batch normalisation (one is put back unless the result is a
single pixel, goes to a reshape as a patch embedding does, or is normalised over channels before or after), and
whether PyTorch would run attention in one kernel (it is taken for one).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import onnx

from optkit.core.errors import InputError
from optkit.measure.estimate_graph import VIEWS, OnnxGraph, Shape, find_attention
from optkit.measure.estimate_ops import Op, convolution

Reads = tuple[tuple[int, int], ...]

KINDS = {
    **dict.fromkeys(("Relu", "Clip", "LeakyRelu", "PRelu"), "relu"),
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Tanh"), "sigmoid"),
    **dict.fromkeys(("Add", "Sub", "Sum"), "add"),
    **dict.fromkeys(("Mul", "Div", "Pow", "Exp", "Sqrt", "Max", "Min", "Sin", "Cos"), "mul"),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"), "reduce"),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalMaxPool"), "pool"),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), "layer_norm"),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization"), "group_norm"),
    **dict.fromkeys(("Gelu", "Erf"), "gelu"),
    **dict.fromkeys(("Concat", "Pad", "Tile", "Resize", "Upsample", "Where", "Gather"), "copy"),
    **dict.fromkeys(("GatherElements", "GatherND", "ScatterElements", "ScatterND"), "copy"),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), "copy"),
    **dict.fromkeys(("Neg", "Abs", "Not", "Equal", "Reciprocal"), "copy"),
    "BatchNormalization": "batch_norm",
    "Softmax": "softmax",
    "HardSwish": "hardswish",
    "Swish": "silu",
}
GATES = {"Sigmoid": "silu", "HardSigmoid": "hardswish"}  # x·gate(x) is one activation
CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}  # and which of its inputs is the weight
PRODUCTS = {"Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}
WITH_PARAMETER = ("Add", "Sub", "Mul", "Div", "Concat")


def onnx_ops(model: onnx.ModelProto, size: int) -> list[Op]:
    """Operations on one image of `size` pixels; InputError for a graph whose shapes cannot be inferred."""
    graph = OnnxGraph(model, size)
    ops = _Reader(graph).read()
    batch = graph.shape(graph.image)[0]
    return ops if batch == 1 else [_of_one(op, batch) for op in ops]


def _of_one(op: Op, batch: int) -> Op:
    """What an operation on a batch is for one image."""
    reads = tuple((tensor, count // batch) for tensor, count in op.reads)
    return replace(op, reads=reads, writes=(op.writes[0], op.writes[1] // batch), macs=op.macs // batch)


class _Reader:
    """Walks the nodes in order. `_number` maps a tensor that comes from the image to the operation that wrote
    it, of which it may be a view."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._attention = find_attention(graph)
        self._is_folded = all(node.op_type != "BatchNormalization" for node in graph.nodes)
        self._number = {graph.image: 0}
        self._ops: dict[int, Op] = {}

    def read(self) -> list[Op]:
        """Every operation that depends on the image."""
        for node in self._graph.nodes:
            inputs = [name for name in node.input if name in self._number]
            if node.op_type == "Shape" or not inputs:
                continue
            if node.output[0] in self._attention.operands:
                self._attend(node)
            elif self._is_view(node, inputs):
                self._number |= dict.fromkeys(node.output, self._number[inputs[0]])
            elif not self._is_gated(node, inputs):
                self._operation(node, inputs)
        return list(self._ops.values())

    def _is_view(self, node: onnx.NodeProto, inputs: Sequence[str]) -> bool:
        """Whether a node moves nothing where PyTorch runs the network: a bias is part of its product."""
        if node.op_type in VIEWS or node.output[0] in self._attention.inner:
            return True
        constants = [sum(axis > 1 for axis in shape) for shape in self._graph.constants_of(node)]
        if not constants:
            return False
        maker = self._ops.get(self._number[inputs[0]])
        is_bias = node.op_type == "Add" and maker is not None and maker.kind == "linear"
        users = self._graph.users(node.output[0])
        is_near_erf = any(user.op_type == "Erf" for user in users) or (maker and maker.kind == "gelu")
        is_around_erf = node.op_type in ("Add", "Mul", "Div") and is_near_erf
        return any((is_bias and axes <= 1) or (is_around_erf and axes == 0) for axes in constants)

    def _is_gated(self, node: onnx.NodeProto, inputs: Sequence[str]) -> bool:
        """Let x·gate(x) be one activation, in the gate's place."""
        if node.op_type != "Mul" or len(inputs) < 2:
            return False
        for name, other in (inputs, reversed(inputs)):
            number, gate = self._number[name], self._graph.maker(name)
            op = self._ops.get(number)
            if op and gate and op.kind in ("sigmoid", "gelu") and op.reads[0][0] == self._number[other]:
                self._ops[number] = replace(op, kind=GATES.get(gate.op_type, op.kind))
                self._number[node.output[0]] = number
                return True
        return False

    def _attend(self, node: onnx.NodeProto) -> None:
        names = self._attention.operands[node.output[0]]
        query, key, value = (self._graph.shape(name) for name in names)
        reads = tuple(
            (self._number.get(name, 0), math.prod(shape))
            for name, shape in zip(names, (query, key, value), strict=True)
        )
        depth = query[-1] + value[-1]
        rows = math.prod(query[:-1])
        op = Op("attention", reads, (0, rows * value[-1]), macs=rows * key[-1] * depth)
        self._add(node, replace(op, width=key[-1], depth=depth))

    def _operation(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        reads = tuple((self._number[name], self._values(name)) for name in inputs)
        if node.op_type in CONVOLUTIONS:
            self._convolve(node, reads)
        elif node.op_type in PRODUCTS:
            self._multiply(node, reads)
        else:
            self._pass_on(node, reads)

    def _values(self, name: str) -> int:
        """How many values a tensor has: of one whose shape is not known, as many as what it is a view of."""
        if name in self._graph.shapes:
            return math.prod(self._graph.shapes[name])
        op = self._ops.get(self._number[name])
        return op.writes[1] if op else math.prod(self._graph.shape(name))

    def _pass_on(self, node: onnx.NodeProto, reads: Reads) -> None:
        """An operation without a product: elementwise, a normalisation, a reduction or a copy."""
        output = self._graph.shapes.get(node.output[0])
        written = max(count for _, count in reads) if output is None else math.prod(output)
        has_parameter = any(math.prod(shape) > 1 for shape in self._graph.constants_of(node))
        promotes = node.op_type in WITH_PARAMETER and has_parameter
        unknown = "" if node.op_type in KINDS else node.op_type
        kind = KINDS.get(node.op_type, "copy")
        self._add(node, Op(kind, reads, (0, written), promotes=promotes, unknown=unknown))

    def _convolve(self, node: onnx.NodeProto, reads: Reads) -> None:
        image, weight = (self._graph.shape(node.input[place]) for place in (0, CONVOLUTIONS[node.op_type]))
        output = self._graph.shape(node.output[0])
        count = math.prod(output)
        groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
        self._add(node, convolution(image, weight, output, groups, reads[:1], (0, count)))
        if self._is_folded and self._had_batch_norm(node, output):
            self._add(node, Op("batch_norm", ((self._number[node.output[0]], count),), (0, count)))

    def _had_batch_norm(self, node: onnx.NodeProto, output: Shape) -> bool:
        before, after = self._graph.maker(node.input[0]), self._graph.users(node.output[0])
        is_embedding = self._graph.is_only_viewed(node.output[0])
        is_normalised = any(other.op_type == "LayerNormalization" for other in (before, *after) if other)
        return math.prod(output[2:]) > 1 and not is_embedding and not is_normalised

    def _multiply(self, node: onnx.NodeProto, reads: Reads) -> None:
        second = node.input[PRODUCTS[node.op_type]]
        depth, width = self._matrix(node, second)
        output = self._graph.shapes.get(node.output[0])
        count = reads[0][1] // depth * width if output is None else math.prod(output)
        op = Op("attention", reads, (0, count), macs=count * depth, width=width, depth=depth)
        if constants := [name for name in (node.input[0], second) if name not in self._number]:
            op = replace(op, kind="linear", weights=math.prod(self._graph.shape(constants[0])))
        self._add(node, op)

    def _matrix(self, node: onnx.NodeProto, name: str) -> tuple[int, int]:
        """Rows and columns of the second factor of a product: a vector is a column, a stack has them last."""
        shape = self._graph.shape(name)
        if 0 in shape or not shape:
            raise InputError(
                f"The product {node.name or node.output[0]!r} cannot be counted.",
                why=f"The shape of its factor {name!r} is {list(shape)}.",
                hint="Check the file with `optkit lint`.",
            )
        *_, depth, width = (*shape, 1) if len(shape) == 1 else shape
        is_turned = any(entry.name == "transB" and entry.i for entry in node.attribute)
        return (width, depth) if is_turned else (depth, width)

    def _add(self, node: onnx.NodeProto, op: Op) -> None:
        """Note an operation that writes the outputs of `node`."""
        number = len(self._ops) + 1
        self._ops[number] = replace(op, writes=(number, op.writes[1]))
        self._number |= dict.fromkeys(node.output, number)
