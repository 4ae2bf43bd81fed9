"""Scales and zero points that are no numbers, do not fit their tensor, or differ within a pair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from optkit.graph.lint.base import CPU, TARGETS, TENSORRT, Rule, Severity
from optkit.graph.lint.names import label
from optkit.graph.lint.view import Codec, LintGraph
from optkit.graph.qdq_view import attribute

SMALLEST = float(np.finfo(np.float32).tiny)


def _once(graph: LintGraph) -> Iterator[Codec]:
    """The first of those that share scale and zero point, as the two of a pair do."""
    return iter({tuple(codec.node.input[1:]): codec for codec in reversed(graph.codecs)}.values())


def bad_scales(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """A scale of 0 makes 0 / 0; denormal ones become 0 where the runtime flushes them."""
    for codec in _once(graph):
        if codec.scale is None:
            continue
        values = codec.scale.astype(np.float64).ravel()
        usable = np.isfinite(values) & (values >= SMALLEST)
        if not values.size:
            yield label(codec.node), "It has an empty scale."
        elif not usable.all():
            worst = float(values[~usable][0])
            places = "" if values.size == 1 else f" (and {int((~usable).sum()) - 1} more of {values.size})"
            yield (
                label(codec.node),
                f"Its scale is {worst:g}{places}: every value becomes NaN, 0 or infinite.",
            )


def computed(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Runtimes fuse what they can fold: scales must be constants."""
    for codec in _once(graph):
        if codec.scale is None or codec.zero is None:
            yield label(codec.node), "Its scale or zero point is computed by the graph, not a constant."


def misfits(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Lengths of scale and zero point against the axis they belong to."""
    for codec in _once(graph):
        if codec.scale is None or attribute(codec.node, "block_size", 0):
            continue
        scales = codec.scale.size
        if codec.zero is not None and len(codec.node.input) > 2 and codec.zero.size != scales:
            yield label(codec.node), f"It has {scales} scales and {codec.zero.size} zero points."
        constant = graph.tensors.get(codec.origin)
        if constant is None or codec.scale.ndim == 0 or scales == 1:
            continue
        shape = tuple(constant.dims)
        if not -len(shape) <= codec.axis < len(shape) or shape[codec.axis] != scales:
            yield label(codec.node), f"{scales} scales along axis {codec.axis} do not fit the shape {shape}."


def unequal_pairs(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """What is decoded otherwise than it was encoded is another value."""
    encoders = {codec.node.output[0]: codec for codec in graph.codecs if _encodes(codec)}
    for codec in graph.codecs:
        encoder = encoders.get(codec.node.input[0])
        if encoder is None or _encodes(codec):
            continue
        if encoder.type != codec.type and TensorProto.UNDEFINED not in (encoder.type, codec.type):
            yield label(codec.node), f"It decodes another integer type than {label(encoder.node)!r} encodes."
        elif not (_same(encoder.scale, codec.scale) and _same(encoder.zero, codec.zero)) or (
            codec.scale is not None and codec.scale.size > 1 and encoder.axis != codec.axis
        ):
            yield label(codec.node), f"Its scale, axis or zero point is not that of {label(encoder.node)!r}."


def _encodes(codec: Codec) -> bool:
    return bool(codec.node.op_type == "QuantizeLinear")


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether they may be equal; one value stands for any number of it, as an absent zero point does."""
    if one is None or other is None:
        return True
    sizes_fit = one.size == other.size or 1 in (one.size, other.size)
    return sizes_fit and bool((one.ravel() == other.ravel()).all())


def _decoded_weights(graph: LintGraph) -> Iterator[tuple[onnx.NodeProto, Codec, int]]:
    """Plain nodes, the DQ of their weights, and the axis that scales belong to."""
    for node in graph.weighted():
        codec = graph.decoder(node, 1)
        in_blocks = codec is not None and attribute(codec.node, "block_size", 0)
        if codec is not None and codec.scale is not None and not in_blocks:
            yield node, codec, graph.weight_axis(node)


def wrong_axis(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Integer kernels multiply by the scale after the sum, so it may differ between outputs only."""
    for node, codec, axis in _decoded_weights(graph):
        rank = len(graph.tensors[node.input[1]].dims)
        if codec.scale is not None and codec.scale.size > 1 and codec.axis % rank != axis:
            yield label(graph.original(node)), f"Its weights have scales along axis {codec.axis}, not {axis}."


def per_channel_activations(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Inside a sum over channels their scales do not factor out."""
    for codec in graph.activation_codecs():
        is_first = codec.node.op_type == "QuantizeLinear"
        if is_first and codec.scale is not None and codec.scale.size > 1:
            yield (
                label(codec.node),
                f"An activation with {codec.scale.size} scales: integer kernels take one.",
            )


def _per_tensor(graph: LintGraph, depthwise: bool) -> Iterator[tuple[str, str]]:
    for node, codec, axis in _decoded_weights(graph):
        shape = graph.tensors[node.input[1]].dims
        outputs = shape[axis]
        is_depthwise = node.op_type == "Conv" and attribute(node, "group", 1) > 1 and shape[1] == 1
        if codec.scale is not None and codec.scale.size == 1 and outputs > 1 and is_depthwise == depthwise:
            kind = "depthwise filters" if depthwise else "output channels"
            yield (
                label(graph.original(node)),
                f"One scale for {outputs} {kind}: narrow ones are left few codes.",
            )


def per_tensor_depthwise(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Ranges of depthwise filters differ most."""
    return _per_tensor(graph, depthwise=True)


def per_tensor_weights(graph: LintGraph) -> Iterator[tuple[str, str]]:
    """Weights of other layers."""
    return _per_tensor(graph, depthwise=False)


PER_CHANNEL = "Quantise again with a weight scale per output channel (opset 13 or newer)."
WORSE_FOR_TENSORRT = {**Severity.ERROR.on((TENSORRT,)), **Severity.WARNING.on(CPU)}
RULES = (
    Rule("scale", Severity.ERROR.on(TARGETS), "Guard all-zero channels and constant tensors when taking ranges; "
         "quantise again.", bad_scales),
    Rule("computed-scale", WORSE_FOR_TENSORRT, "Write scales and zero points as constants.", computed),
    Rule("scale-shape", Severity.ERROR.on(TARGETS), "Give one scale and one zero point, or one per channel of the "
         "axis.", misfits),
    Rule("unequal-pair", Severity.ERROR.on(TARGETS), "Give both nodes of a pair the same scale, zero point and type.",
         unequal_pairs),
    Rule("scale-axis", Severity.ERROR.on(TARGETS), "Put the axis of weight scales on the output channels.", wrong_axis),
    Rule("activation-scales", WORSE_FOR_TENSORRT, "Give activations one scale.", per_channel_activations),
    Rule("per-tensor-depthwise", Severity.ERROR.on(TARGETS), PER_CHANNEL, per_tensor_depthwise),
    Rule("per-tensor-weights", Severity.WARNING.on(TARGETS), PER_CHANNEL, per_tensor_weights),
)  # fmt: skip
