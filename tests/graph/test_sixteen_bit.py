from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from optkit.core import machine
from optkit.core.errors import InputError
from optkit.core.types import Precision
from optkit.graph.onnx_file import classifier_io, precision_of
from optkit.graph.qdq_prepare import prepare
from optkit.graph.sixteen_bit import ELEMENTS, emulated, float_work, to_sixteen_bit, unconvertible
from optkit.measure.parity import compare_logits
from optkit.runtimes import tensorrt
from tests.small_networks import Builder, gated_network, residual_network, textured_images

BOTH = pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
NETWORKS = pytest.mark.parametrize("network", [residual_network, gated_network])
SQNR_DB = {Precision.FP16: 50, Precision.BF16: 30}  # 11 and 8 significant bits


def answer(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


def assert_typed(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def casts(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Cast"]


@BOTH
@pytest.mark.parametrize(
    ("network", "opset"), [(residual_network, 13), (residual_network, 20), (gated_network, 20)]
)
def test_every_weight_and_operator_is_16_bit_between_fp32_ends(
    precision: Precision, network, opset: int
) -> None:
    model = prepare(network(opset=opset))
    model.metadata_props.add(key="note", value="kept")
    before = model.SerializeToString()
    converted = to_sixteen_bit(model, precision, set())
    assert model.SerializeToString() == before
    assert_typed(converted)
    assert precision_of(converted) == precision
    kinds = {t.data_type for t in converted.graph.initializer}
    assert kinds <= {ELEMENTS[precision], TensorProto.INT64}
    assert classifier_io(converted) == classifier_io(model)
    assert {value.type.tensor_type.elem_type for value in converted.graph.output} == {TensorProto.FLOAT}
    assert len(casts(converted)) == 2
    assert [(e.key, e.value) for e in converted.metadata_props] == [("note", "kept")]
    assert converted.opset_import[0].version == (22 if precision == Precision.BF16 else opset)


@BOTH
@NETWORKS
def test_answers_differ_by_rounding_alone(precision: Precision, network) -> None:
    model, pixels = prepare(network()), textured_images(8)
    converted = to_sixteen_bit(model, precision, set())
    reference = ReferenceEvaluator(converted).run(None, {"input": pixels})[0]
    rounded = emulated(converted)
    assert_typed(rounded)
    expected = answer(model, pixels)
    for logits in (reference, answer(rounded, pixels)):
        assert SQNR_DB[precision] < compare_logits(expected, logits).sqnr_db < SQNR_DB[precision] + 30


def test_onnxruntime_runs_fp16() -> None:
    model, pixels = prepare(gated_network()), textured_images(4)
    logits = answer(to_sixteen_bit(model, Precision.FP16, set()), pixels)
    assert compare_logits(answer(model, pixels), logits).sqnr_db > SQNR_DB[Precision.FP16]


@BOTH
@NETWORKS
def test_kept_nodes_compute_in_fp32(precision: Precision, network) -> None:
    model = prepare(network())
    nodes = [node for node in model.graph.node if node.name in float_work(model)]
    for kept in ({nodes[2].name}, {nodes[0].name, nodes[-1].name}, {node.name for node in nodes}):
        converted = to_sixteen_bit(model, precision, kept)
        assert_typed(converted)
        types = onnx.shape_inference.infer_shapes(converted).graph
        kinds = {value.name: value.type.tensor_type.elem_type for value in (*types.value_info, *types.output)}
        for node in converted.graph.node:
            if node.op_type != "Cast" and node.name in float_work(model):
                assert (kinds[node.output[0]] == TensorProto.FLOAT) == (node.name in kept)
        cast_results = {cast.output[0] for cast in casts(converted)}
        sources = [(cast.input[0], cast.attribute[0].i) for cast in casts(converted)]
        assert not cast_results & {name for name, _ in sources}  # no Cast undoes another
        assert len(set(sources)) == len(sources)
    assert converted.graph.node[0].op_type != "Cast"  # all is kept: nothing to cast
    np.testing.assert_array_equal(answer(converted, textured_images(2)), answer(model, textured_images(2)))


def test_a_weight_of_both_worlds_exists_in_both() -> None:
    b = Builder()
    weight = b.constant(np.full((3, 3, 1, 1), 0.3, np.float32))
    first = b.op("Conv", "input", weight)
    x = b.pool(b.op("Conv", first, weight), 0, 20)
    model = prepare(b.model(b.op("MatMul", x, b.constant(np.ones((3, 4), np.float32))), 4, None, 20))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    converted = to_sixteen_bit(model, Precision.FP16, {conv.name})
    assert_typed(converted)
    conv_weights = [t for t in converted.graph.initializer if list(t.dims) == [3, 3, 1, 1]]
    assert {t.data_type for t in conv_weights} == {TensorProto.FLOAT, TensorProto.FLOAT16}


@BOTH
def test_resize_keeps_fp32_scales_and_a_clip_without_end_stays_finite(precision: Precision) -> None:
    b = Builder()
    largest = np.float32(np.finfo(np.float32).max)
    x = b.op("Clip", b.conv("input", 3, 8), b.constant(np.float32(0)), b.constant(largest))
    b.op("Resize", x, "", b.constant(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    x = b.op("Clip", b.nodes[-1].output[0], "", b.constant(np.float32(6)))
    weight = b.constant(b.rng.standard_normal((8, 4)).astype(np.float32))
    model = prepare(b.model(b.op("MatMul", b.pool(x, 0, 20), weight), 4, None, 20))
    assert not unconvertible(model, precision)
    converted = to_sixteen_bit(model, precision, set())
    assert_typed(converted)
    values = [numpy_helper.to_array(t).astype(np.float64) for t in converted.graph.initializer]
    assert all(np.isfinite(value).all() for value in values)
    scales = next(t for t in converted.graph.initializer if list(t.dims) == [4])
    assert scales.data_type == TensorProto.FLOAT
    pixels = textured_images(4)
    logits = answer(emulated(converted), pixels)
    assert compare_logits(answer(model, pixels), logits).sqnr_db > SQNR_DB[precision]


def test_arithmetic_on_shapes_is_left_alone() -> None:
    b = Builder()
    x = b.conv("input", 3, 8)
    batch = b.op("Cast", b.op("Shape", x, start=0, end=1), to=TensorProto.FLOAT)
    large = b.op("Mul", batch, b.constant(np.array([40_000.0], np.float32)))  # 80000 for two images
    x = b.op("Mul", x, b.op("Div", large, b.constant(np.array([80_000.0], np.float32))))
    weight = b.constant(b.rng.standard_normal((8, 4)).astype(np.float32))
    model = prepare(b.model(b.op("MatMul", b.pool(x, 0, 20), weight), 4, None, 20))
    ops = {node.name: node.op_type for node in model.graph.node}
    assert {"Shape", "Div"} <= set(ops.values())
    assert [ops[name] for name in float_work(model)] == [
        "Conv",
        "Mul",
        "GlobalAveragePool",
        "Flatten",
        "MatMul",
    ]
    converted = to_sixteen_bit(model, Precision.FP16, set())
    assert_typed(converted)
    pixels = textured_images(2)
    logits = answer(emulated(converted), pixels)
    assert compare_logits(answer(model, pixels), logits).sqnr_db > SQNR_DB[Precision.FP16]


def test_constants_that_overflow_keep_their_operator_in_fp32_and_are_not_clamped() -> None:
    b = Builder()
    x = b.op("Mul", b.op("Relu", b.conv("input", 3, 8)), b.constant(np.float32(1e5)))
    x = b.op("Mul", x, b.constant(np.float32(1e-5)))
    weight = b.constant(b.rng.standard_normal((8, 4)).astype(np.float32))
    model = prepare(b.model(b.op("MatMul", b.pool(x, 0, 20), weight), 4, None, 20))
    large = next(node for node in model.graph.node if node.op_type == "Mul")
    reasons = unconvertible(model, Precision.FP16)
    assert list(reasons) == [large.name]
    assert "1e+05" in reasons[large.name]
    assert not unconvertible(model, Precision.BF16)
    converted = to_sixteen_bit(model, Precision.FP16, set())
    assert_typed(converted)
    values = [float(numpy_helper.to_array(t).max()) for t in converted.graph.initializer]
    assert 1e5 in values


def test_an_operator_without_the_type_is_named_and_kept() -> None:
    b = Builder()
    x = b.op("Celu", b.conv("input", 3, 8))  # float32 only
    weight = b.constant(b.rng.standard_normal((8, 4)).astype(np.float32))
    model = prepare(b.model(b.op("MatMul", b.pool(x, 0, 20), weight), 4, None, 20))
    (reason,) = unconvertible(model, Precision.FP16).values()
    assert "float16" in reason
    assert_typed(to_sixteen_bit(model, Precision.FP16, set()))


def test_control_flow_is_refused() -> None:
    model = prepare(residual_network())
    branch = helper.make_graph([], "branch", [], [])
    model.graph.node.append(
        helper.make_node("If", ["c"], ["x"], "if", then_branch=branch, else_branch=branch)
    )
    with pytest.raises(InputError, match="branches or loops"):
        to_sixteen_bit(model, Precision.FP16, set())


@pytest.mark.skipif(
    (machine.tensorrt() or ("",))[0] != "tensorrt_rtx", reason="tensorrt_rtx is not installed"
)
@BOTH
@pytest.mark.parametrize("target", ["SM89", "SM120"])
def test_tensorrt_builds_it(precision: Precision, target: str, tmp_path) -> None:
    model = prepare(gated_network())
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    onnx.save(to_sixteen_bit(model, precision, {conv.name}), tmp_path / "a.onnx")
    facts = tensorrt.build_engine(tmp_path / "a.onnx", tmp_path / "a.plan", target, 4, 16)
    assert facts["compute_capability"] == [target]
