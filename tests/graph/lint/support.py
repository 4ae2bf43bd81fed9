"""Quantised small networks, and ways to break them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
from onnx import helper, numpy_helper

from optkit.core import discover
from optkit.graph.qdq import insert_qdq
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.config import PLACEMENTS
from tests.small_networks import gated_network, residual_network

NETWORKS = {"residual": residual_network, "gated": gated_network}


@cache
def _quantized(network: str, target: str, bias: bool | None) -> bytes:
    model = prepare(NETWORKS[network]())
    view = GraphView(model)
    plan = discover.load(PLACEMENTS, target, "target").plan(view)
    plan.quantize_bias = plan.quantize_bias if bias is None else bias
    # Plausible is enough for a linter. Behind Relu and Clip runtimes fuse ranges from 0 on only.
    clipped = {name for name, maker in view.producer.items() if maker.op_type in ("Relu", "Clip")}
    ranges = {name: (0.0, 6.0) if name in clipped else (-3.0, 3.0) for name in plan.observed()}
    return insert_qdq(model, plan, ranges).SerializeToString()


def quantized(network: str, target: str, bias: bool | None = None) -> onnx.ModelProto:
    """The network as the placement for `target` makes it; `bias` overrides whether biases are quantised."""
    return onnx.ModelProto.FromString(_quantized(network, target, bias))


def plain(network: str) -> onnx.ModelProto:
    """The prepared network without Q/DQ."""
    return prepare(NETWORKS[network]())


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy()


def put(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    """Write an initializer, in place of the one of this name."""
    kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, numpy_helper.from_array(np.asarray(value), name)])
    return name


def add(
    model: onnx.ModelProto, before: str, kind: str, inputs: list[str], name: str, **attributes: object
) -> str:
    """A new node in front of the one called `before`; returns its output."""
    index = [entry.name for entry in model.graph.node].index(before)
    domain = str(attributes.pop("domain", ""))
    model.graph.node.insert(index, helper.make_node(kind, inputs, [name], name, domain=domain, **attributes))
    return name


def pair(model: onnx.ModelProto, tensor: str, reader: str, kind: type = np.int8) -> None:
    """Let `reader` read `tensor` through a new Q/DQ pair of zero point 0."""
    scale, zero = put(model, "new.scale", np.float32(0.05)), put(model, "new.zero", kind(0))
    coded = add(model, reader, "QuantizeLinear", [tensor, scale, zero], "new.quantize")
    redirect(
        model, reader, tensor, add(model, reader, "DequantizeLinear", [coded, scale, zero], "new.dequantize")
    )


def redirect(model: onnx.ModelProto, reader: str, old: str, new: str) -> None:
    found = node(model, reader)
    found.input[:] = [new if name == old else name for name in found.input]


Break = Callable[[onnx.ModelProto], None]
