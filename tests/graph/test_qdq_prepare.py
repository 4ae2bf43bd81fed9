from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from optkit.core.errors import InputError
from optkit.graph.qdq_prepare import parameter_count, prepare
from optkit.graph.qdq_view import attribute
from tests.small_networks import gated_network, residual_network, textured_images


def answer(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": pixels})[0]


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_prepared_network_answers_the_same(opset: int) -> None:
    model = residual_network(opset=opset)
    model.metadata_props.add(key="note", value="kept")
    prepared = prepare(model)
    ops = [node.op_type for node in prepared.graph.node]
    assert "BatchNormalization" not in ops
    assert "ReduceMean" not in ops
    assert "GlobalAveragePool" in ops
    assert all(list(attribute(n, "kernel_shape", [])) for n in prepared.graph.node if n.op_type == "Conv")
    assert len({node.name for node in prepared.graph.node}) == len(ops)
    assert prepared.opset_import[0].version >= 13
    assert prepared.metadata_props[0].value == "kept"
    pixels = textured_images(3)
    expected = answer(model, pixels)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(answer(prepared, pixels), expected, rtol=1e-3, atol=1e-4)


def test_pooling_that_keeps_its_axes_stays_without_flatten() -> None:
    prepared = prepare(gated_network())
    ops = [node.op_type for node in prepared.graph.node]
    assert ops.count("GlobalAveragePool") == 2
    assert ops.count("Flatten") == 1
    pixels = textured_images(2)
    np.testing.assert_allclose(
        answer(prepared, pixels), answer(gated_network(), pixels), rtol=1e-3, atol=1e-4
    )


def test_quantised_and_half_precision_files_are_refused() -> None:
    quantized = residual_network()
    quantized.graph.node.append(helper.make_node("QuantizeLinear", ["input", "s"], ["q"], "q"))
    with pytest.raises(InputError, match="quantised already"):
        prepare(quantized)
    half = residual_network()
    half.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float16), "half"))
    with pytest.raises(InputError, match="16-bit"):
        prepare(half)
    reads_half = residual_network()
    reads_half.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    with pytest.raises(InputError, match="16-bit"):
        prepare(reads_half)


def test_parameter_count_is_the_number_of_weights() -> None:
    conv = 16 * 3 * 9 + 16 + 16 * 9 + 16 + 16 * 16 + 16
    assert parameter_count(residual_network()) == conv + 4 * 16 + 2 + 16 * 4 + 4
