"""Groups of activation channels that can be multiplied by a factor each, and doing so, with unchanged logits.

A channel may be scaled where a convolution makes it, if everything that reads it divides by the same factor and
all operators between are positively homogeneous: f(s · x) = s · f(x) for s > 0. Generalises the pairs of layers of
Nagel et al. 2019 (arXiv 1906.04721, section 4.1) to whole residual stages, whose sums share their channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from optkit.graph.qdq_view import GATES, GraphView, attribute

Array = NDArray[np.float64]

RECTIFIERS = frozenset({"Relu", "LeakyRelu", "PRelu"})
GLOBAL_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool"})
POOLS = GLOBAL_POOLS | {"AveragePool", "MaxPool"}
HOMOGENEOUS = RECTIFIERS | POOLS | {"Identity", "Dropout"}


@dataclass(frozen=True)
class ChannelGroup:
    """Tensors whose channel i may be multiplied by one factor > 0.

    `producers` are the Conv and Gemm whose output channels they are, `consumers` the Conv, Gemm and MatMul that
    read them (names of nodes). `linear`: no activation function lies between, as behind the bottlenecks of
    MobileNetV2 and EfficientNet.
    """

    tensors: tuple[str, ...]
    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    linear: bool


def channel_groups(view: GraphView) -> list[ChannelGroup]:
    """The groups of a prepared graph, as large as they can be; what is not sure to be exact is in none."""
    bodies = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    if any(entry.type in bodies for node in view.nodes for entry in node.attribute):
        return []  # the body of an If or a Loop reads tensors that its node does not name
    return _Grouping(view).groups()


@dataclass(frozen=True)
class _Layout:
    """Where the channels are: on axis 1, for rank 2 each followed by its pixels unless they are `pooled`."""

    channels: int
    rank: int
    pooled: bool


class _Grouping:
    def __init__(self, view: GraphView) -> None:
        self.view = view
        self.members: dict[str, set[str]] = {}
        self.layouts: dict[str, _Layout] = {}
        self.fixed = {*view.inputs, *view.outputs}  # tensors whose values must stay
        for node in view.nodes:
            inputs = view.activation_inputs(node)
            weighted = node.op_type in ("Conv", "Gemm", "MatMul")
            if not (self._weighted(node, inputs) if weighted else self._passes(node, inputs)):
                self.fixed.update(inputs, node.output)

    def groups(self) -> list[ChannelGroup]:
        found = {id(members): members for members in self.members.values()}
        return [group for members in found.values() if (group := self._group(members)) is not None]

    def _group(self, members: set[str]) -> ChannelGroup | None:
        if members & self.fixed:
            return None
        makers = [node for node in self.view.nodes if not members.isdisjoint(node.output)]
        readers = [node for node in self.view.nodes if not members.isdisjoint(node.input)]
        producers = tuple(node.name for node in makers if node.op_type in ("Conv", "Gemm"))
        consumers = tuple(node.name for node in readers if node.op_type in ("Conv", "Gemm", "MatMul"))
        channels = self.layouts[next(iter(members))].channels
        if channels < 2 or not consumers:
            return None
        tensors = tuple(sorted(members, key=lambda name: (self.view.activations[name], name)))
        linear = not any(node.op_type in RECTIFIERS for node in makers)
        return ChannelGroup(tensors, channels, producers, consumers, linear)

    def _weighted(self, node: onnx.NodeProto, inputs: list[str]) -> bool:
        """Let a layer end the group that it reads and start the one that it writes; False if it can do neither."""
        axis = self.view.weight_axis(node)
        if axis is None or inputs != [node.input[0]]:
            return False
        layout = self.layouts.get(node.input[0])
        if layout is None or not self._reads_channels(node, layout, axis):
            self.fixed.add(node.input[0])
        weight = self.view.constants[node.input[1]]
        self._start(
            node.output[0], _Layout(weight.dims[axis], len(weight.dims), pooled=len(weight.dims) == 2)
        )
        bias = self.view.bias(node)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        if node.op_type == "MatMul" or (has_bias and (bias is None or bias.size != weight.dims[axis])):
            self.fixed.add(node.output[0])
        return True

    def _reads_channels(self, node: onnx.NodeProto, layout: _Layout, axis: int) -> bool:
        if node.op_type == "Conv":
            return layout.rank > 2 and layout.channels == self.view.conv_shape(node).inputs
        features = self.view.constants[node.input[1]].dims[1 - axis]
        whole = features % layout.channels == 0 and (not layout.pooled or features == layout.channels)
        return layout.rank == 2 and whole

    def _passes(self, node: onnx.NodeProto, inputs: list[str]) -> bool:
        """Join inputs and output of an operator that keeps the channels apart; False for any other."""
        if sum(map(bool, node.output)) != 1:
            return False  # indices of MaxPool, mask of Dropout
        if len(inputs) == 2:
            return self._adds(node, inputs) or self._is_gated(node, inputs)
        layout = self.layouts.get(node.input[0])
        if layout is None or inputs != [node.input[0]]:
            return False
        if node.op_type in HOMOGENEOUS:
            pooled = layout.pooled or node.op_type in GLOBAL_POOLS
            return self._join(node, inputs, replace(layout, pooled=pooled))
        if node.op_type in ("Flatten", "Reshape") and self._keeps_channels(node, layout):
            return self._join(node, inputs, replace(layout, rank=2))
        return False

    def _adds(self, node: onnx.NodeProto, inputs: list[str]) -> bool:
        one, other = (self.layouts.get(name) for name in inputs)
        if node.op_type != "Add" or one is None or other is None:
            return False
        if (one.channels, one.rank) != (other.channels, other.rank):
            return False
        return self._join(node, inputs, replace(one, pooled=one.pooled and other.pooled))

    def _is_gated(self, node: onnx.NodeProto, inputs: list[str]) -> bool:
        """x · gate, as in squeeze-and-excitation: x is scaled, the gate stays in 0 … 1."""
        for gate, name in (inputs, inputs[::-1]):
            maker, layout = self.view.producer.get(gate), self.layouts.get(name)
            if node.op_type == "Mul" and maker is not None and maker.op_type in GATES and layout is not None:
                return self._join(node, [name], replace(layout, pooled=False))
        return False

    def _keeps_channels(self, node: onnx.NodeProto, layout: _Layout) -> bool:
        """Whether the result is (batch, channels · pixels)."""
        if node.op_type == "Flatten":
            return bool(attribute(node, "axis", 1) == 1)
        shape = self.view.constant(node.input[1])
        if shape is None or shape.size != 2:
            return False
        batch, features = shape.tolist()
        if batch == 0:  # as before
            return not attribute(node, "allowzero", 0)
        return layout.pooled and features == layout.channels

    def _start(self, tensor: str, layout: _Layout) -> None:
        self.layouts[tensor], self.members[tensor] = layout, {tensor}

    def _join(self, node: onnx.NodeProto, inputs: list[str], layout: _Layout) -> bool:
        self._start(node.output[0], layout)
        together = set().union(*(self.members[name] for name in (*inputs, node.output[0])))
        self.members.update(dict.fromkeys(together, together))
        return True


def rescale(model: onnx.ModelProto, factors: dict[ChannelGroup, Array]) -> onnx.ModelProto:
    """A copy that computes the same, where channel i of a group's tensors is `factors[group][i]` times as large.

    Names of tensors and nodes stay. ValueError for factors that are not (channels,) positive finite numbers.
    """
    rescaled = onnx.ModelProto()
    rescaled.CopyFrom(model)
    view = GraphView(rescaled)
    rows: dict[str, Array] = {}
    columns: dict[str, Array] = {}
    for group, values in factors.items():
        if values.shape != (group.channels,) or not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"need {group.channels} positive factors for {group.tensors[0]!r}, got {values}")
        rows.update(dict.fromkeys(group.producers, values))
        columns.update(dict.fromkeys(group.consumers, values))
    for node in view.nodes:
        if node.name in columns or node.name in rows:
            scaled = _scale_weight(view, node, rows.get(node.name), columns.get(node.name))
            for index, value in scaled.items():
                tensor = view.constants[node.input[index]]
                if len(view.consumers[tensor.name]) > 1:  # shared: the others keep theirs
                    node.input[index] = f"{node.name}.{tensor.name}"
                    tensor = rescaled.graph.initializer.add()
                tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), node.input[index]))
    return rescaled


def column_magnitudes(view: GraphView, group: ChannelGroup) -> Array:
    """(channels,) largest weight that reads a channel, where 1 is the largest weight of the same output channel.

    Only layers that sum over channels count: weights have a scale per output channel, so a depthwise layer does
    not care how large a channel is.
    """
    magnitudes = np.zeros(group.channels)
    for node in view.nodes:
        if node.name in group.consumers:
            weight = np.abs(_by_output(view, node))
            weight = weight.reshape(*weight.shape[:2], -1).max(axis=2)
            if weight.shape[1] > 1:
                relative = weight / np.maximum(weight.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
                np.maximum.at(magnitudes, _channel_read(view, node, group.channels), relative)
    return magnitudes


def _by_output(view: GraphView, node: onnx.NodeProto) -> Array:
    """Weight in double precision as (outputs, inputs per group, *kernel)."""
    weight = numpy_helper.to_array(view.constants[node.input[1]]).astype(np.float64)
    return np.moveaxis(weight, view.weight_axis(node) or 0, 0)


def _channel_read(view: GraphView, node: onnx.NodeProto, channels: int) -> NDArray[np.intp]:
    """(outputs, inputs per group): which channel of its input every weight multiplies."""
    weight = _by_output(view, node)
    outputs, inputs = weight.shape[:2]
    groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
    pixels = inputs * groups // channels  # of a flattened map, which follow each other
    return np.repeat(np.arange(groups * inputs).reshape(groups, inputs) // pixels, outputs // groups, axis=0)


def _scale_weight(
    view: GraphView, node: onnx.NodeProto, rows: Array | None, columns: Array | None
) -> dict[int, Array]:
    """New values of a layer's inputs, by their index."""
    weight = _by_output(view, node)
    scaled = {}
    if columns is not None:
        read = columns[_channel_read(view, node, len(columns))]
        weight = weight / read.reshape(*read.shape, *[1] * (weight.ndim - 2))
    if rows is not None:
        weight = weight * rows.reshape(-1, *[1] * (weight.ndim - 1))
        bias = view.bias(node)
        if bias is not None:
            scaled[2] = bias * rows
    scaled[1] = np.moveaxis(weight, 0, view.weight_axis(node) or 0)
    return scaled
