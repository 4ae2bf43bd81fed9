"""Insert QuantizeLinear/DequantizeLinear pairs where a plan says, with ranges that calibration found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field, replace

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from optkit.graph.qdq_view import GraphView

Range = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """The codes that activations are rounded to, `low_code` … `high_code`: integers, or FP8 numbers (E4M3)."""

    symmetric: bool
    float8: bool = False

    @property
    def dtype(self) -> type[np.generic]:
        if self.float8:
            return ml_dtypes.float8_e4m3fn
        return np.int8 if self.symmetric else np.uint8

    @property
    def low_code(self) -> int:
        return -self.high_code if self.symmetric else 0

    @property
    def high_code(self) -> int:
        if self.float8:
            return 448
        return 127 if self.symmetric else 255

    @property
    def weights(self) -> Grid:
        """Weights are symmetric whatever activations are."""
        return Grid(symmetric=True, float8=self.float8)

    def encode(self, values: NDArray[np.floating]) -> NDArray[np.generic]:
        """The nearest codes to values in units of the scale, without a zero point."""
        rounded = values if self.float8 else np.rint(values)
        return np.clip(rounded, self.low_code, self.high_code).astype(self.dtype)

    @property
    def steps(self) -> int:
        return self.high_code - self.low_code

    def scale(self, low: float, high: float) -> tuple[np.float32, int]:
        """Scale and zero point that represent low … high, widened so that 0 is exact."""
        low, high = min(low, 0.0), max(high, 0.0)
        if self.symmetric:
            high = max(-low, high)
            low = -high
        scale = np.float32((high - low) / self.steps)
        if scale < np.finfo(np.float32).tiny:  # an all-zero tensor: 0 / 0 would make the network answer NaN
            return np.float32(1.0), 0
        return scale, round(self.low_code - low / float(scale))


@dataclass
class QdqPlan:
    """What becomes INT8. Tensors and nodes by name.

    `edges` maps an activation to the nodes that shall read it through one shared Q/DQ pair; `nodes` are
    the operators thereby quantised; `fixed` holds ranges that are known without calibration; `floors`
    bounds observed ranges from below where lower values make no difference; `same_range` maps a tensor to
    the one whose range it must share; `left` says why an operator stays in floating point.
    """

    grid: Grid
    quantize_bias: bool
    edges: dict[str, set[str]] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)
    fixed: dict[str, Range] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)
    same_range: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def add_edge(self, tensor: str, *readers: onnx.NodeProto) -> None:
        """Let `readers` read `tensor` through Q/DQ."""
        self.edges.setdefault(tensor, set()).update(node.name for node in readers)

    def range_source(self, tensor: str) -> str:
        """The tensor whose range `tensor` takes; itself unless it must share another's."""
        while tensor in self.same_range:
            tensor = self.same_range[tensor]
        return tensor

    def observed(self) -> list[str]:
        """The tensors that calibration must look at."""
        sources = dict.fromkeys(self.range_source(tensor) for tensor in self.edges)
        return [name for name in sources if name not in self.fixed]

    def scales(self, ranges: dict[str, Range]) -> dict[str, tuple[np.float32, int]]:
        """Scale and zero point of every tensor in `edges`; `ranges` has all of `observed()`."""
        known = {**ranges, **self.fixed}
        known.update(
            {name: (max(known[name][0], floor), known[name][1]) for name, floor in self.floors.items()}
        )
        return {name: self.grid.scale(*known[self.range_source(name)]) for name in self.edges}

    def only(self, nodes: Set[str]) -> QdqPlan:
        """The part of the plan that concerns `nodes`: the rest stays in floating point."""
        edges = {name: readers & nodes for name, readers in self.edges.items() if readers & nodes}
        return replace(self, edges=edges, nodes=self.nodes & nodes)

    def without(self, nodes: dict[str, str], view: GraphView) -> QdqPlan:
        """The plan with `nodes` in floating point, for the reasons given.

        They read exact values, unless the operator before them is made for integers out, as one with an INT32 bias
        is: without codes behind it, it would be in floating point, too.
        """
        planned = self.nodes - nodes.keys()
        edges = {
            name: readers if self.quantize_bias and _maker(name, view) in planned else readers - nodes.keys()
            for name, readers in self.edges.items()
        }
        edges = {name: readers for name, readers in edges.items() if readers}
        return replace(self, edges=edges, nodes=planned, left={**self.left, **nodes})


def _maker(tensor: str, view: GraphView) -> str:
    """The operator whose result `tensor` is, clipped perhaps; empty for the image."""
    maker = view.producer.get(tensor)
    while maker is not None and maker.op_type in ("Clip", "Relu"):
        maker = view.producer.get(maker.input[0])
    return "" if maker is None else maker.name


def channel_scales(weight: NDArray[np.float32], axis: int, high_code: int = 127) -> NDArray[np.float32]:
    """Symmetric scale of every output channel; a channel of zeros takes a tiny share of the largest."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.abs(weight).max(axis=others)
    floor = float(largest.max()) * 1e-6 or 1.0
    return (np.maximum(largest, floor) / high_code).astype(np.float32)


def insert_qdq(
    model: onnx.ModelProto,
    plan: QdqPlan,
    ranges: dict[str, Range],
    weight_scales: dict[str, NDArray[np.float32]] | None = None,
) -> onnx.ModelProto:
    """A copy of `model` with the plan's Q/DQ pairs, INT8 weights and, where planned, INT32 biases.

    `ranges` holds low and high of every tensor in `plan.observed()`, `weight_scales` the scales of nodes whose
    weights were fitted to a grid already; the others take `channel_scales`.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    _Inserter(quantized, plan, ranges, weight_scales or {}).run()
    return quantized


class _Inserter:
    def __init__(
        self,
        model: onnx.ModelProto,
        plan: QdqPlan,
        ranges: dict[str, Range],
        weight_scales: dict[str, NDArray[np.float32]],
    ) -> None:
        self.graph, self.plan = model.graph, plan
        self.view = GraphView(model)
        self.scales = plan.scales(ranges)
        self.weight_scales = weight_scales
        self.before: dict[str, list[onnx.NodeProto]] = {}  # new nodes in front of the node of this name

    def run(self) -> None:
        planned = [node for node in self.view.nodes if node.name in self.plan.nodes]
        for node in planned:
            if (axis := self.view.weight_axis(node)) is not None:
                self._quantize_weight(node, axis)
        for tensor in self.plan.edges:
            self._quantize_activation(tensor)
        nodes = [new for node in self.view.nodes for new in (*self.before.get(node.name, ()), node)]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        self._drop_unused_constants()

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _quantize_activation(self, tensor: str) -> None:
        readers = [node for node in self.view.nodes if node.name in self.plan.edges[tensor]]
        scale, zero = self.scales[tensor]
        parameters = [
            self._constant(f"{tensor}.scale", np.array(scale)),
            self._constant(f"{tensor}.zero_point", np.array(zero, self.plan.grid.dtype)),
        ]
        integer, decoded = f"{tensor}.quantized", f"{tensor}.dequantized"
        pair = [
            helper.make_node("QuantizeLinear", [tensor, *parameters], [integer], f"{tensor}.quantize"),
            helper.make_node("DequantizeLinear", [integer, *parameters], [decoded], f"{tensor}.dequantize"),
        ]
        self.before.setdefault(readers[0].name, []).extend(pair)
        for node in readers:
            for index, name in enumerate(node.input):
                if name == tensor:
                    node.input[index] = decoded

    def _quantize_weight(self, node: onnx.NodeProto, axis: int) -> None:
        weight = self.view.constant(node.input[1])
        scales = self.weight_scales.get(node.name)
        grid = self.plan.grid.weights
        scales = channel_scales(weight, axis, grid.high_code) if scales is None else scales
        bias = self.view.bias(node) if self.plan.quantize_bias else None
        if bias is not None:
            # INT32 must hold the bias in units of (input scale · weight scale).
            input_scale = float(self.scales[node.input[0]][0])
            scales = np.maximum(scales, np.abs(bias) / (input_scale * 2**30)).astype(np.float32)
        shape = [-1 if other == axis else 1 for other in range(weight.ndim)]
        codes = grid.encode(weight / scales.reshape(shape))
        node.input[1] = self._decoded(node, "weight", codes, scales, axis)
        if bias is not None:
            bias_scales = (input_scale * scales.astype(np.float64)).astype(np.float32)
            codes = np.rint(bias / bias_scales.astype(np.float64)).astype(np.int32)
            node.input[2] = self._decoded(node, "bias", codes, bias_scales, 0)

    def _decoded(
        self,
        node: onnx.NodeProto,
        role: str,
        codes: NDArray[np.generic],
        scales: NDArray[np.float32],
        axis: int,
    ) -> str:
        name = f"{node.name}.{role}"
        names = [
            self._constant(f"{name}.quantized", codes),
            self._constant(f"{name}.scale", scales),
            self._constant(f"{name}.zero_point", np.zeros(scales.shape, codes.dtype)),
        ]
        decode = helper.make_node(
            "DequantizeLinear", names, [f"{name}.dequantized"], f"{name}.dequantize", axis=axis
        )
        self.before.setdefault(node.name, []).append(decode)
        return decode.output[0]

    def _drop_unused_constants(self) -> None:
        used = {name for node in self.graph.node for name in node.input} | self.view.outputs
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def summary(model: onnx.ModelProto, plan: QdqPlan) -> dict[str, object]:
    """Counts of quantised operators by type, and every operator left in floating point with the reason."""
    ops = {node.name: node.op_type for node in model.graph.node}
    return {
        "quantized": dict(sorted(Counter(ops[name] for name in plan.nodes).items())),
        "float": [{"node": name, "op": ops[name], "reason": why} for name, why in plan.left.items()],
    }
