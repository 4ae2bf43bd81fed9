from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from optkit.graph.qdq import Grid, QdqPlan, channel_scales, insert_qdq, summary
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from tests.small_networks import residual_network, textured_images


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 6.0), (2.0, 5.0), (-4.0, -1.0)])
def test_asymmetric_grid_holds_its_range_and_zero_exactly(low: float, high: float) -> None:
    scale, zero = Grid(symmetric=False).scale(low, high)
    ends = (np.array([0, 255]) - zero) * scale
    assert 0 <= zero <= 255
    assert ends[0] <= min(low, 0) + scale / 2
    assert ends[1] >= max(high, 0) - scale / 2


def test_symmetric_grid_has_no_zero_point() -> None:
    assert Grid(symmetric=True).scale(-2.0, 1.0) == (np.float32(2 / 127), 0)


@pytest.mark.parametrize("symmetric", [True, False])
def test_all_zero_activation_has_a_usable_scale(symmetric: bool) -> None:
    assert Grid(symmetric).scale(0.0, 0.0) == (1.0, 0)


def test_zero_channels_and_zero_weights_have_usable_scales() -> None:
    weight = np.zeros((3, 2, 1, 1), np.float32)
    weight[0] = 12.7
    scales = channel_scales(weight, 0)
    assert scales[0] == pytest.approx(0.1)
    assert (scales > 0).all()
    assert (channel_scales(np.zeros_like(weight), 0) > 0).all()


def planned_input(model: onnx.ModelProto, bias: bool) -> QdqPlan:
    view = GraphView(model)
    plan = QdqPlan(Grid(symmetric=False), quantize_bias=bias)
    plan.add_edge("input", *view.consumers["input"])
    plan.nodes.add(view.consumers["input"][0].name)
    return plan


@pytest.mark.parametrize("bias", [True, False])
def test_insertion_changes_the_answer_by_rounding_only(bias: bool) -> None:
    model = residual_network()
    for tensor in model.graph.initializer:  # a dead channel, as pruning and BatchNormalization leave them
        if tensor.dims[:1] == [16] and len(tensor.dims) == 4:
            value = numpy_helper.to_array(tensor).copy()
            value[3] = 0
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    model = prepare(model)
    pixels = textured_images(4)
    plan = planned_input(model, bias)
    quantized = insert_qdq(model, plan, {"input": (float(pixels.min()), float(pixels.max()))})
    onnx.checker.check_model(quantized, full_check=True)
    answers = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input": pixels}
        )[0]
        for m in (model, quantized)
    ]
    difference = np.abs(answers[0] - answers[1]).max()
    assert 0 < difference < 0.05 * np.ptp(answers[0])
    kinds = {tensor.data_type for tensor in quantized.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert (onnx.TensorProto.INT32 in kinds) == bias
    assert summary(quantized, plan)["quantized"] == {"Conv": 1}


def test_floor_bounds_a_range_from_below() -> None:
    model = prepare(residual_network())
    plan = planned_input(model, True)
    plan.floors["input"] = -1.0
    quantized = insert_qdq(model, plan, {"input": (-9.0, 4.1)})
    scale = next(numpy_helper.to_array(t) for t in quantized.graph.initializer if t.name == "input.scale")
    assert scale == pytest.approx(5.1 / 255)
