"""The first layers of networks made of depthwise convolutions: in INT8 they lose most accuracy and gain least time.

How much of both, by runtime, is told where the placements use it.
"""

from __future__ import annotations

import onnx

from optkit.graph.qdq_view import GraphView


def float_start(view: GraphView) -> list[onnx.NodeProto]:
    """The stem and the depthwise convolution that reads it, each with its activation; empty without the latter."""
    for stem in view.consumers[view.inputs[0]]:
        first = [stem, *activation_of(view, stem)]
        for node in view.consumers[first[-1].output[0]]:
            if stem.op_type == node.op_type == "Conv" and _is_depthwise(view, node):
                return [*first, node, *activation_of(view, node)]
    return []


def activation_of(view: GraphView, conv: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes of ReLU, HardSwish or SiLU behind a convolution, in their order."""
    readers = view.consumers[conv.output[0]]
    pair = len(readers) == 2 and view.gated_by_itself(readers[1])
    if pair or (len(readers) == 1 and readers[0].op_type in ("Relu", "Clip", "HardSwish")):
        return readers
    return []


def _is_depthwise(view: GraphView, node: onnx.NodeProto) -> bool:
    if view.weight_axis(node) is None:
        return False
    shape = view.conv_shape(node)
    return shape.groups == shape.inputs == shape.outputs
