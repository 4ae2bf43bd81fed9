"""What Q/DQ placement asks about an ONNX graph: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# What SiLU and HardSwish multiply their input with.
GATES = frozenset({"Sigmoid", "HardSigmoid"})
# Their results have ends of their own, so they hold no outliers.
BOUNDED_OPS = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh"})
# What exporters write as an end of a Clip that has none on that side.
NO_END = float(np.finfo(np.float32).max)
# Cut off part of the range that the operator before them makes. Rounding to a range that ends there does the same,
# so kernels do both at once, and Q belongs behind them.
CLIPPING = frozenset({"Relu", "Clip"})
# Their results describe shapes, not images, whatever arithmetic follows.
SHAPE_OPS = frozenset({"Shape", "Size", "NonZero", "ConstantOfShape", "Range"})
# What holds no activation any more once it is cast to. A tuple: in a damaged file `to` may be anything.
WHOLE_NUMBERS = tuple(
    kind for name, kind in onnx.TensorProto.DataType.items() if name.startswith(("INT", "UINT", "BOOL"))
)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Value of a node's attribute, `default` where it is not written."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def inner_reads(node: onnx.NodeProto) -> Iterator[str]:
    """What the nodes in the subgraphs of an If, Loop or Scan read: tensors of its own graph too."""
    for entry in node.attribute:
        for graph in (entry.g, *entry.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from inner.input
                yield from inner_reads(inner)


@dataclass(frozen=True)
class ConvShape:
    """`inputs` and `outputs` count channels, `kernel` is (height, width)."""

    inputs: int
    outputs: int
    groups: int
    kernel: tuple[int, ...]


class GraphView:
    """An index of one graph; stale as soon as the graph is changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.outputs = {value.name for value in graph.output}
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys((*node.input, *inner_reads(node))):
                self.consumers[name].append(node)
        self.activations = self._activations()

    def _activations(self) -> dict[str, int]:
        """Every tensor computed from the image, with its depth: nodes on the longest path from the input."""
        depth = dict.fromkeys(self.inputs, 0)
        for node in self.nodes:  # ONNX nodes are in topological order
            before = [depth[name] for name in node.input if name in depth]
            to_integers = node.op_type == "Cast" and attribute(node, "to", 1) in WHOLE_NUMBERS
            if before and node.op_type not in SHAPE_OPS and not to_integers:
                depth.update(dict.fromkeys(node.output, max(before) + 1))
        return depth

    def constant(self, name: str) -> NDArray[Any] | None:
        """Value of an initializer, None for anything computed."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def activation_inputs(self, node: onnx.NodeProto) -> list[str]:
        """The node's inputs that are computed from the image."""
        return [name for name in node.input if name in self.activations]

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads `name`; None when others read it too or it is an output of the graph."""
        readers = self.consumers[name]
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def conv_shape(self, node: onnx.NodeProto) -> ConvShape:
        """Channels, groups and kernel of a Conv with constant weights (outputs, inputs / groups, *kernel)."""
        outputs, inputs, *kernel = self.constants[node.input[1]].dims
        groups = attribute(node, "group", 1)
        return ConvShape(inputs * groups, outputs, groups, tuple(kernel))

    def gated_by_itself(self, node: onnx.NodeProto) -> str | None:
        """The x of a Mul that computes SiLU, x · sigmoid(x), or HardSwish, x · hardsigmoid(x)."""
        if node.op_type != "Mul":
            return None
        for gate, other in (tuple(node.input), tuple(node.input)[::-1]):
            maker = self.producer.get(gate)
            if maker is not None and maker.op_type in GATES and maker.input[0] == other:
                return other
        return None

    def pools_maps(self, node: onnx.NodeProto) -> bool:
        """Whether it takes the mean over height and width."""
        if node.op_type != "ReduceMean":
            return bool(node.op_type == "GlobalAveragePool")
        axes = attribute(node, "axes", None)
        if axes is None and len(node.input) > 1:
            tensor = self.constants.get(node.input[1])
            if tensor is not None and tensor.data_type == onnx.TensorProto.INT64:
                axes = numpy_helper.to_array(tensor).ravel().tolist()
        return axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]

    def is_bounded(self, name: str) -> bool:
        """Whether the operator that makes `name` bounds its values on both sides."""
        maker = self.producer.get(name)
        if maker is None or maker.op_type != "Clip":
            return maker is not None and maker.op_type in BOUNDED_OPS
        ends = [self.constant(end) for end in maker.input[1:]]
        return len(ends) == 2 and all(
            end is not None and end.size == 1 and abs(end.item()) < NO_END for end in ends
        )

    def weight_axis(self, node: onnx.NodeProto) -> int | None:
        """Axis of output channels of a constant FP32 weight of Conv, Gemm or MatMul; None without one."""
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[0] not in self.activations:
            return None
        weight = self.constants.get(node.input[1])
        if weight is None or weight.data_type != onnx.TensorProto.FLOAT:
            return None
        if node.op_type == "Conv":
            return 0
        if len(weight.dims) != 2 or attribute(node, "transA", 0):
            return None
        return 0 if attribute(node, "transB", 0) else 1

    def bias(self, node: onnx.NodeProto) -> NDArray[np.float32] | None:
        """Constant per-channel bias of a Conv or Gemm."""
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3 or not node.input[2]:
            return None
        value, axis = self.constant(node.input[2]), self.weight_axis(node)
        if value is None or axis is None or value.shape != (self.constants[node.input[1]].dims[axis],):
            return None  # one value for all channels, for example
        return value
