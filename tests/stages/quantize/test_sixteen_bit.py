from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.core.types import Precision, Preprocess
from optkit.data.config import DataConfig
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.graph.onnx_file import classifier_io
from optkit.graph.qdq_prepare import prepare
from optkit.graph.sixteen_bit import emulated, to_sixteen_bit
from optkit.measure.parity import compare_logits
from optkit.report.quantisation_schema import Validation
from optkit.stages.quantize.budget import checker
from optkit.stages.quantize.sixteen_bit import convert_to_sixteen_bit, judge
from tests.small_networks import Builder, gated_network, residual_network, textured_images

FP16_MAX = 65504


def convert(model: onnx.ModelProto, precision: Precision = Precision.FP16):
    images = [textured_images(8), textured_images(5, seed=1)]
    with SilentReporter().track("") as task:
        return convert_to_sixteen_bit(model, classifier_io(model), precision, images, task)


def answer(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": pixels})[0]


def sqnr_db(model: onnx.ModelProto, converted: onnx.ModelProto) -> float:
    pixels = textured_images(8, seed=2)
    return compare_logits(answer(model, pixels), answer(emulated(converted), pixels)).sqnr_db


def scaled(factor: float) -> onnx.ModelProto:
    """Three convolutions with Relu; activations of the second are `factor` times too large, the third undoes it."""
    b = Builder()
    x = "input"
    for inputs, outputs in ((3, 8), (8, 8), (8, 8)):
        x = b.op("Relu", b.conv(x, inputs, outputs))
    weights = {name: value for name, value in b.weights.items() if value.ndim in (1, 4)}
    for name, change in zip(weights, (1, 1, factor, factor, 1 / factor, 1), strict=True):
        b.weights[name] = weights[name] * np.float32(change)
    head = b.constant(b.rng.standard_normal((8, 4)).astype(np.float32))
    return prepare(b.model(b.op("MatMul", b.pool(x, 0, 20), head), 4, None, 20))


def kept(details: dict) -> dict[str, str]:
    return {entry["node"]: entry["reason"] for entry in details["float"]}


@pytest.mark.parametrize("name", ["input.abs", "conv0.sum"])
def test_tensors_of_a_model_may_be_called_anything(name: str) -> None:
    """Also as what is added to a copy of it to measure its sums."""

    def largest_sum(activation: str) -> dict:
        b = Builder()
        b.op("Relu", b.conv("input", 3, 4))
        b.nodes[-1].output[0] = activation
        x = b.op("Flatten", b.op("GlobalAveragePool", activation))
        return convert(prepare(b.model(x, 4, None, 20)))[1]["largest_sum"]

    assert largest_sum(name) == largest_sum("relu1")


@pytest.mark.parametrize("network", [residual_network, gated_network])
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_a_tame_network_is_converted_whole(precision: Precision, network) -> None:
    model = prepare(network())
    converted, details = convert(model, precision)
    assert details["float"] == []
    work = [node for node in model.graph.node if node.op_type != "Cast"]
    assert sum(details["quantized"].values()) == len(work)
    assert sqnr_db(model, converted) > (50 if precision == Precision.FP16 else 30)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    top = details["largest_activation"]
    probe.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(top["tensor"], TensorProto.FLOAT, None))
    seen = [answer(probe, pixels) for pixels in (textured_images(8), textured_images(5, seed=1))]
    assert top["value"] == pytest.approx(max(np.abs(values).max() for values in seen), rel=1e-4)


def test_overflowing_activations_stay_in_fp32() -> None:
    model = scaled(20_000.0)
    pixels = textured_images(8, seed=2)
    expected = answer(scaled(1.0), pixels)
    np.testing.assert_allclose(answer(model, pixels), expected, rtol=1e-4, atol=1e-4)  # the same function
    plain = to_sixteen_bit(model, Precision.FP16, set())
    assert not np.isfinite(answer(emulated(plain), pixels)).all()
    converted, details = convert(model)
    convs = [node.name for node in model.graph.node if node.op_type == "Conv"]
    relus = [node.name for node in model.graph.node if node.op_type == "Relu"]
    assert set(kept(details)) == {convs[1], relus[1], convs[2]}
    assert all("reaches" in reason for reason in kept(details).values())
    assert details["largest_activation"]["value"] > FP16_MAX
    assert sqnr_db(model, converted) > 50


def test_bf16_keeps_nothing_whatever_the_scale() -> None:
    model = scaled(20_000.0)
    converted, details = convert(model, Precision.BF16)
    assert details["float"] == []
    assert sqnr_db(model, converted) > 30


def test_activations_near_the_end_stay_in_fp32_too() -> None:
    """They do not overflow on these images; on others they would."""
    model = scaled(2_000.0)
    converted, details = convert(model)
    assert details["limit"] < details["largest_activation"]["value"] < FP16_MAX
    assert kept(details)
    assert sqnr_db(model, converted) > 50


def test_vanishing_activations_and_weights_stay_in_fp32() -> None:
    model = scaled(1e-7)
    assert sqnr_db(model, to_sixteen_bit(model, Precision.FP16, set())) < 10
    converted, details = convert(model)
    reasons = " ".join(kept(details).values())
    assert "few digits" in reasons
    assert sqnr_db(model, converted) > 50
    assert convert(model, Precision.BF16)[1]["float"] == []


def test_weights_that_vanish_alone_stay_in_fp32() -> None:
    b = Builder()
    large = b.op("Mul", b.op("Sigmoid", b.conv("input", 3, 8)), b.constant(np.float32(5_000)))
    weight = b.constant((b.rng.standard_normal((8, 8, 1, 1)) * 2e-7).astype(np.float32))
    head = b.constant((b.rng.standard_normal((8, 4)) * 1e3).astype(np.float32))
    model = prepare(b.model(b.op("MatMul", b.pool(b.op("Conv", large, weight), 0, 20), head), 4, None, 20))
    assert sqnr_db(model, to_sixteen_bit(model, Precision.FP16, set())) < 35
    converted, details = convert(model)
    assert any("too small for FP16" in reason for reason in kept(details).values())
    assert sqnr_db(model, converted) > 40


def test_a_dead_channel_costs_nothing() -> None:
    model = prepare(residual_network())
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == conv.input[1])
    value = numpy_helper.to_array(weight).copy()
    value[3] *= 1e-9
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    assert convert(model)[1]["float"] == []


def test_sums_that_overflow_an_fp16_accumulator_stay_in_fp32() -> None:
    """All results are small; the sum behind the mean over 256 pixels is not, nor is the one that cancels out."""
    b = Builder()
    x = b.op("Mul", b.op("Sigmoid", b.conv("input", 3, 8)), b.constant(np.float32(1_000)))
    weight = np.ones((4, 8, 1, 1), np.float32) * 3
    weight[:, ::2] *= -1
    cancelled = b.op("Sigmoid", b.op("Conv", x, b.constant(weight)))
    head = b.constant(b.rng.standard_normal((12, 4)).astype(np.float32))
    pooled = b.pool(b.op("Concat", x, cancelled, axis=1), 0, 20)
    model = prepare(b.model(b.op("MatMul", pooled, head), 4, None, 20))
    _, details = convert(model)
    ops = {entry["op"]: entry["reason"] for entry in details["float"]}
    assert set(ops) == {"GlobalAveragePool", "Conv"}
    assert all("sums may reach" in reason for reason in ops.values())
    assert details["largest_activation"]["value"] < details["limit"] < details["largest_sum"]["value"]
    assert details["largest_sum"]["value"] <= 256_000
    assert convert(model, Precision.BF16)[1]["float"] == []


@pytest.mark.parametrize("window", [2, 16])
def test_average_pooling_sums_its_window(window: int) -> None:
    b = Builder()
    x = b.op("Mul", b.op("Sigmoid", b.conv("input", 3, 8)), b.constant(np.float32(1_000)))
    x = b.op("AveragePool", x, kernel_shape=[window] * 2, strides=[window] * 2)
    head = b.constant(b.rng.standard_normal((8, 4)).astype(np.float32))
    model = prepare(b.model(b.op("MatMul", b.op("Relu", b.pool(x, 0, 20)), head), 4, None, 20))
    ops = {entry["op"] for entry in convert(model)[1]["float"]}
    assert ("AveragePool" in ops) == (window == 16)


def test_a_file_in_which_nothing_becomes_16_bit_is_refused() -> None:
    b = Builder()
    x = b.op("Conv", "input", b.constant(np.full((4, 3, 1, 1), 1e6, np.float32)))
    model = prepare(b.model(b.op("Flatten", b.op("GlobalMaxPool", x)), 4, None, 20))
    with pytest.raises(InputError, match="can become FP16") as caught:
        convert(model)
    assert "1e+06" in caught.value.why
    half = to_sixteen_bit(prepare(residual_network()), Precision.FP16, set())
    half.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    del half.graph.node[0], half.graph.node[-1]
    half.graph.node[0].input[0], half.graph.node[-1].output[0] = "input", "logits"
    half.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(half, full_check=True)
    with pytest.raises(InputError, match="can become FP16") as caught:
        convert(half)
    assert "computes in FP32" in caught.value.why


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_the_file_is_judged_in_its_own_arithmetic(precision: Precision) -> None:
    """ONNX Runtime's CPU provider computes FP16 in FP32, and refuses BF16."""
    model = prepare(gated_network())
    converted, _ = convert(model, precision)
    images = load_data(DataConfig(path="synthetic"), SilentReporter()).val
    preprocess = Preprocess(size=16)
    check = checker(model, classifier_io(model), images, None, preprocess, SilentReporter())
    told = judge(converted, precision, check)
    pixels = np.concatenate([one.pixels for one in batches(images, preprocess, 64, SilentReporter())])
    own = compare_logits(answer(model, pixels), answer(emulated(converted), pixels)).sqnr_db
    assert told["validation"]["sqnr_db"] == pytest.approx(own, abs=0.3)
    assert told["validation"]["agreement"] > 0.9
    assert told["validated_by"].startswith("emulation")
    assert precision.upper() in told["validated_by"]
    assert Validation.model_validate(told["validation"]).sqnr_db == told["validation"]["sqnr_db"]
    if precision is Precision.FP16:
        in_fp32 = compare_logits(answer(model, pixels), answer(converted, pixels)).sqnr_db
        assert in_fp32 - own > 1


def test_squares_stay_in_fp32() -> None:
    b = Builder()
    x = b.op("LRN", b.conv("input", 3, 8), size=3)
    head = b.constant(b.rng.standard_normal((8, 4)).astype(np.float32))
    model = prepare(b.model(b.op("MatMul", b.pool(x, 0, 20), head), 4, None, 20))
    converted, details = convert(model)
    assert [entry["op"] for entry in details["float"]] == ["LRN"]
    assert sqnr_db(model, converted) > 50
