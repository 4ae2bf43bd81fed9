from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit.core.errors import InputError
from optkit.graph.qdq_prepare import parameter_count, prepare
from optkit.graph.qdq_view import attribute
from tests.small_networks import Builder, gated_network, residual_network, textured_images


def answers(
    model: onnx.ModelProto, pixels: np.ndarray, given: dict[str, np.ndarray] | None = None
) -> list[np.ndarray]:
    """All outputs; `given` replaces constants that are inputs too."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": pixels, **(given or {})})


def answer(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    return answers(model, pixels)[0]


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


def test_factors_of_a_gemm_are_folded_into_its_constants_alone() -> None:
    """Two Gemm share a bias with a sum, which goes on reading it as it was."""
    b = Builder()
    weights = [b.constant(b.rng.standard_normal((16, 16)).astype(np.float32)) for _ in range(2)]
    bias = b.constant(b.rng.standard_normal(16).astype(np.float32))
    x = b.op("Add", b.op("Flatten", b.op("GlobalAveragePool", b.conv("input", 3, 16))), bias)
    x = b.op("Relu", b.op("Gemm", x, weights[0], bias, alpha=0.5, beta=3.0, transB=1))
    x = b.op("Gemm", x, weights[1], bias, alpha=-2.0)
    model = b.model(x, 16, None, 20)
    prepared = prepare(model)
    gemms = [node for node in prepared.graph.node if node.op_type == "Gemm"]
    assert [(attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)) for node in gemms] == [(1, 1)] * 2
    assert len({name for node in gemms for name in node.input[1:]}) == 4
    pixels = textured_images(3)
    np.testing.assert_allclose(answer(prepared, pixels), answer(model, pixels), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("reader", ["MatMul", "output"])
def test_a_folded_constant_stays_for_those_who_read_it_as_an_activation(reader: str) -> None:
    """A product of two constants is folded away, so it has a second input that is computed."""
    b = Builder()
    shared = b.constant(b.rng.standard_normal((16, 16)).astype(np.float32))
    x = b.op("Flatten", b.op("GlobalAveragePool", b.conv("input", 3, 16)))
    x = b.op("Gemm", x, shared, alpha=0.5)
    if reader == "MatMul":
        square = b.op("Reshape", b.op("ReduceMean", x, b.constant(np.array([0], np.int64)), keepdims=1),
                      b.constant(np.array([16, 1], np.int64)))  # fmt: skip
        product = b.op("MatMul", shared, square)
        x = b.op("Add", x, b.op("Reshape", product, b.constant(np.array([1, 16], np.int64))))
    else:
        x = b.op("Relu", x)
    model = b.model(x, 16, None, 20)
    if reader == "output":
        model.graph.output.append(helper.make_tensor_value_info(shared, TensorProto.FLOAT, [16, 16]))
    pixels = textured_images(3)
    before, after = (answers(one, pixels) for one in (model, prepare(model)))
    for expected, found in zip(before, after, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_constant_that_may_be_given_keeps_its_factor() -> None:
    b = Builder()
    weight = b.constant(b.rng.standard_normal((16, 16)).astype(np.float32))
    x = b.op("Flatten", b.op("GlobalAveragePool", b.conv("input", 3, 16)))
    model = b.model(b.op("Gemm", x, weight, alpha=0.5), 16, None, 20)
    model.graph.input.append(helper.make_tensor_value_info(weight, TensorProto.FLOAT, [16, 16]))
    pixels = textured_images(3)
    for given in ({}, {weight: np.eye(16, dtype=np.float32)}):
        before, after = (answers(one, pixels, given)[0] for one in (model, prepare(model)))
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)


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
