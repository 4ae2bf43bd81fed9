from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit.graph.qdq_view import GraphView
from tests.small_networks import Builder


def _cast_in_between(kind: int) -> onnx.ModelProto:
    b = Builder()
    x = b.op("Cast", b.op("Cast", b.conv("input", 3, 4), to=kind), to=TensorProto.FLOAT)
    return b.model(b.op("Flatten", b.pool(x, 1, 20)), 4, None, 20)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_activations_stay_activations_in_other_float_types(kind: int) -> None:
    view = GraphView(_cast_in_between(kind))
    assert "logits" in view.activations


def test_whole_numbers_are_no_activations() -> None:
    assert "logits" not in GraphView(_cast_in_between(TensorProto.INT64)).activations


def _mean(axes: list[int], opset: int) -> tuple[GraphView, onnx.NodeProto]:
    """The input's mean; axes are an input from opset 18 on."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("input", "mean")]
    by_input = opset >= 18
    attributes = {} if by_input else {"axes": axes}
    inputs = ["input", "axes"] if by_input else ["input"]
    constants = [numpy_helper.from_array(np.array(axes, np.int64), "axes")] if by_input else []
    nodes = [helper.make_node("ReduceMean", inputs, ["mean"], **attributes)]
    model = helper.make_model(helper.make_graph(nodes, "mean", values[:1], values[1:], constants))
    return GraphView(model), model.graph.node[0]


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize(
    ("axes", "is_pooling"), [([2, 3], True), ([-1, -2], True), ([1], False), ([1, 2], False)]
)
def test_a_mean_over_height_and_width_is_pooling(opset: int, axes: list[int], is_pooling: bool) -> None:
    view, node = _mean(axes, opset)
    assert view.pools_maps(node) == is_pooling
