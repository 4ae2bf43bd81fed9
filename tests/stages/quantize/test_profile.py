"""Times of ONNX Runtime's kernels, told by the names of the nodes that they come from."""

from __future__ import annotations

import onnx
import pytest

from optkit.core import discover
from optkit.graph.qdq import insert_qdq
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.profile import profile
from tests.small_networks import gated_network, residual_network, textured_images


def of_type(model: onnx.ModelProto, *ops: str) -> set[str]:
    return {node.name for node in model.graph.node if node.op_type in ops}


@pytest.mark.parametrize("network", [residual_network, gated_network])
def test_every_layer_has_its_time_under_its_name(network) -> None:
    model = prepare(network())
    times = profile(model, textured_images(2), runs=5)
    assert of_type(model, "Conv", "Gemm", "MatMul", "MaxPool") <= times.keys()
    assert all(ms >= 0 for ms in times.values())
    assert not of_type(model, "Relu", "Clip") & times.keys()  # fused into convolutions


def test_an_int8_file_can_be_compared_node_by_node() -> None:
    model = prepare(residual_network())
    plan = discover.load("optkit.stages.quantize.placement", "onnxruntime", "target").plan(GraphView(model))
    quantized = insert_qdq(model, plan, dict.fromkeys(plan.observed(), (0.0, 6.0)))
    pixels = textured_images(2)
    layers = of_type(model, "Conv", "Gemm")
    assert layers <= profile(model, pixels, runs=3).keys() & profile(quantized, pixels, runs=3).keys()


def test_a_larger_batch_takes_longer() -> None:
    model = prepare(gated_network())
    small, large = (sum(profile(model, textured_images(n), runs=10).values()) for n in (1, 64))
    assert large > 3 * small
