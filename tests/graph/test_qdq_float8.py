from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from optkit.core import machine
from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq import Grid, QdqPlan, insert_qdq
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.measure.parity import compare_logits
from optkit.runtimes import tensorrt
from optkit.stages.quantize.observe import observe
from optkit.stages.quantize.placement.tensorrt import plan
from tests.small_networks import gated_network, residual_network, textured_images

NETWORKS = pytest.mark.parametrize("network", [residual_network, gated_network])
needs_rtx = pytest.mark.skipif(
    (machine.tensorrt() or ("",))[0] != "tensorrt_rtx", reason="tensorrt_rtx is not installed"
)


def float8(model: onnx.ModelProto) -> tuple[onnx.ModelProto, QdqPlan]:
    planned = plan(GraphView(model))
    planned.grid = Grid(symmetric=True, float8=True)
    with SilentReporter().track("") as task:
        seen = observe(model, classifier_io(model), planned.observed(), [textured_images(32)], False, task)
    return insert_qdq(
        model, planned, {name: (entry.low, entry.high) for name, entry in seen.items()}
    ), planned


@NETWORKS
def test_codes_are_fp8_and_the_answer_differs_by_rounding_alone(network) -> None:
    model, pixels = prepare(network()), textured_images(8, seed=2)
    quantized, planned = float8(model)
    onnx.checker.check_model(quantized, full_check=True)
    zeros = [tensor for tensor in quantized.graph.initializer if tensor.name.endswith(".zero_point")]
    assert {tensor.data_type for tensor in zeros} == {TensorProto.FLOAT8E4M3FN}
    assert sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node) == len(planned.edges)
    expected = ReferenceEvaluator(model).run(None, {"input": pixels})[0]
    by_reference = ReferenceEvaluator(quantized).run(None, {"input": pixels})[0]
    options = onnxruntime.SessionOptions()
    # ONNX Runtime's further rules take every Q/DQ for an integer one, and fail.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        quantized.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    by_onnxruntime = session.run(None, {"input": pixels})[0]
    assert 25 < compare_logits(expected, by_reference).sqnr_db < 50  # E4M3 has 4 significant bits
    np.testing.assert_allclose(by_onnxruntime, by_reference, rtol=1e-4, atol=1e-4)


def test_float8_grid_ends_at_448() -> None:
    grid = Grid(symmetric=True, float8=True)
    assert grid.scale(-448.0, 3.0) == (1.0, 0)
    assert grid.encode(np.array([-500.0, 0.0, 1.06, 17.2, 448.1])).astype(np.float32).tolist() == [
        -448.0, 0.0, 1.0, 18.0, 448.0,
    ]  # fmt: skip


@needs_rtx
@pytest.mark.parametrize("target", ["SM89", "SM120"])
def test_tensorrt_builds_fp8_for_ada_and_later(target: str, tmp_path) -> None:
    onnx.save(float8(prepare(gated_network()))[0], tmp_path / "a.onnx")
    facts = tensorrt.build_engine(tmp_path / "a.onnx", tmp_path / "a.plan", target, 4, 16)
    assert facts["compute_capability"] == [target]


@needs_rtx
def test_tensorrt_refuses_fp8_for_ampere(tmp_path) -> None:
    onnx.save(float8(prepare(gated_network()))[0], tmp_path / "a.onnx")
    with pytest.raises(InputError, match="SM86") as caught:
        tensorrt.build_engine(tmp_path / "a.onnx", tmp_path / "a.plan", "SM86", 4, 16)
    assert "fp8_e4m3" in caught.value.why
