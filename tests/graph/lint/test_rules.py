"""Every rule finds the graph that breaks exactly it, at the right node, and is silent about the good one."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit.core import discover
from optkit.core.types import Precision
from optkit.graph.lint.base import FileFacts, Severity, examine, lint, rules
from optkit.graph.lint.view import LintGraph
from optkit.graph.qdq import Grid, insert_qdq
from optkit.graph.qdq_prepare import FP8_OPSET, prepare
from optkit.graph.qdq_view import GraphView
from optkit.graph.sixteen_bit import to_sixteen_bit
from optkit.stages.quantize.config import PLACEMENTS
from tests.graph.lint.support import (
    NETWORKS,
    Break,
    add,
    constant,
    node,
    pair,
    plain,
    put,
    quantized,
    redirect,
)
from tests.small_networks import Builder

TESTED_ELSEWHERE = {"external-data", "opset-not-honoured"}


@dataclass(frozen=True)
class Case:
    """`made_for` is the placement of the good file, empty for one without Q/DQ; `linted_for` the target."""

    rule: str
    severity: Severity
    linted_for: str
    where: str
    damage: Break
    made_for: str = ""
    network: str = "residual"

    def good(self) -> onnx.ModelProto:
        return quantized(self.network, self.made_for) if self.made_for else plain(self.network)


def scale_of(value: float) -> Break:
    return lambda model: put(model, "relu4.scale", np.float32(value)) and None


def zero_of(value: np.generic) -> Break:
    return lambda model: put(model, "relu4.zero_point", value) and None


def without(attribute: str, name: str) -> Break:
    def damage(model: onnx.ModelProto) -> None:
        kept = [entry for entry in node(model, name).attribute if entry.name != attribute]
        del node(model, name).attribute[:]
        node(model, name).attribute.extend(kept)

    return damage


def bias_codec(model: onnx.ModelProto) -> None:
    conv = node(model, "conv0")
    put(model, "b.scale", np.float32(1e-4))
    codes = put(model, "b.codes", np.ones(16, np.int32))
    conv.input[2] = add(model, "conv0", "DequantizeLinear", [codes, "b.scale"], "b")


def shortcut_bypassed(model: onnx.ModelProto) -> None:
    redirect(model, "add6", "clip2.dequantized", "clip2")


def decode_weight(model: onnx.ModelProto, name: str) -> None:
    """Let the node read its weights from codes of one scale."""
    entry = node(model, name)
    put(model, "weight.codes", np.ones(constant(model, entry.input[1]).shape, np.int8))
    inputs = ["weight.codes", put(model, "weight.scale", np.float32(0.01))]
    entry.input[1] = add(model, name, "DequantizeLinear", inputs, "weight.decoded")


def wrong_edge(model: onnx.ModelProto) -> None:
    shortcut_bypassed(model)
    pair(model, "conv5", "add6")


def output_coded(model: onnx.ModelProto) -> None:
    node(model, "gemm9").output[0] = "raw"
    scale = put(model, "new.scale", np.float32(0.05))
    zero = put(model, "new.zero", np.int8(0))
    model.graph.node.append(
        helper.make_node("QuantizeLinear", ["raw", scale, zero], ["new.q"], "last.quantize")
    )
    model.graph.node.append(
        helper.make_node("DequantizeLinear", ["new.q", scale, zero], ["logits"], "last.dequantize")
    )


def per_tensor(name: str) -> Break:
    def damage(model: onnx.ModelProto) -> None:
        put(model, f"{name}.weight.scale", np.float32(0.01))
        put(model, f"{name}.weight.zero_point", np.int8(0))

    return damage


def weights_of(kind: type) -> Break:
    def damage(model: onnx.ModelProto) -> None:
        for part in ("quantized", "zero_point"):
            put(model, f"conv0.weight.{part}", constant(model, f"conv0.weight.{part}").astype(kind))

    return damage


def two_filters_a_channel(model: onnx.ModelProto) -> None:
    """A depthwise convolution with more outputs than inputs."""
    per_tensor("conv3")(model)
    put(model, "conv3.weight.quantized", np.ones((32, 1, 3, 3), np.int8))


def pairs_of_channels(model: onnx.ModelProto) -> None:
    """As many groups as half the channels: not depthwise."""
    per_tensor("conv3")(model)
    put(model, "conv3.weight.quantized", np.ones((16, 2, 3, 3), np.int8))
    without("group", "conv3")(model)
    node(model, "conv3").attribute.append(helper.make_attribute("group", 8))


def mean_of_maps(model: onnx.ModelProto) -> onnx.NodeProto:
    """The first GlobalAveragePool becomes the ReduceMean `mean`, as exporters write it."""
    pool = next(entry for entry in model.graph.node if entry.op_type == "GlobalAveragePool")
    pool.op_type, pool.name = "ReduceMean", "mean"
    pool.input.append(put(model, "axes", np.array([-1, 2], np.int64)))
    return pool


def pooled_by_mean(model: onnx.ModelProto) -> None:
    as_made_for(RT, "gated")(model)
    mean_of_maps(model)


def island_of_mean(model: onnx.ModelProto) -> None:
    pair(model, mean_of_maps(model).input[0], "mean")


def input_axis(model: onnx.ModelProto) -> None:
    put(model, "conv0.weight.scale", np.full(3, 0.01, np.float32))
    put(model, "conv0.weight.zero_point", np.zeros(3, np.int8))
    without("axis", "conv0.weight.dequantize")(model)  # which means axis 1


def swapped_axis(model: onnx.ModelProto) -> None:
    """A scale for each of the depthwise kernel's three rows."""
    put(model, "conv3.weight.scale", np.full(3, 0.01, np.float32))
    put(model, "conv3.weight.zero_point", np.zeros(3, np.int8))
    without("axis", "conv3.weight.dequantize")(model)
    node(model, "conv3.weight.dequantize").attribute.append(helper.make_attribute("axis", 2))


def too_few_scales(model: onnx.ModelProto) -> None:
    put(model, "conv0.weight.scale", np.full(5, 0.01, np.float32))
    put(model, "conv0.weight.zero_point", np.zeros(5, np.int8))


def unequal(model: onnx.ModelProto) -> None:
    node(model, "relu4.dequantize").input[1] = put(model, "other", np.float32(0.5))


def computed_scale(model: onnx.ModelProto) -> None:
    name = add(model, "relu4.quantize", "Abs", ["relu4.scale"], "computed")
    node(model, "relu4.quantize").input[1] = name
    node(model, "relu4.dequantize").input[1] = name


def activation_scales(model: onnx.ModelProto) -> None:
    put(model, "relu4.scale", np.full(16, 0.01, np.float32))
    put(model, "relu4.zero_point", np.zeros(16, constant(model, "relu4.zero_point").dtype))


def old_opset(model: onnx.ModelProto) -> None:
    without("axis", "conv0.weight.dequantize")(model)
    for entry in model.graph.node:
        if entry.op_type == "DequantizeLinear":
            without("axis", entry.name)(model)
    model.opset_import[0].version = 12


def decoded_twice(model: onnx.ModelProto) -> None:
    parameters = list(node(model, "relu4.dequantize").input)[1:]
    add(model, "conv5", "DequantizeLinear", ["relu4.dequantized", *parameters], "again")
    redirect(model, "conv5", "relu4.dequantized", "again")


def without_partner(model: onnx.ModelProto) -> None:
    add(model, "conv5", "QuantizeLinear", ["relu4", "relu4.scale", "relu4.zero_point"], "lone")


def without_reader(model: onnx.ModelProto) -> None:
    parameters = list(node(model, "relu4.dequantize").input)
    add(model, "conv5", "DequantizeLinear", parameters, "lone")


def integers_to_conv(model: onnx.ModelProto) -> None:
    redirect(model, "conv5", "relu4.dequantized", "relu4.quantized")


def float_weights(model: onnx.ModelProto) -> None:
    node(model, "conv0").input[1] = put(model, "w", np.ones((16, 3, 3, 3), np.float32))


def half_sum(model: onnx.ModelProto) -> None:
    redirect(model, "add6", "conv5.dequantized", "conv5")


def float_pool(model: onnx.ModelProto) -> None:
    redirect(model, "maxpool7", "add6.dequantized", "add6")


def doubled_bias_scale(model: onnx.ModelProto) -> None:
    put(model, "conv0.bias.scale", constant(model, "conv0.bias.scale") * 2)


def float_bias(name: str) -> Break:
    def damage(model: onnx.ModelProto) -> None:
        outputs = len(constant(model, f"{name}.bias.scale"))
        node(model, name).input[2] = put(model, "b", np.ones(outputs, np.float32))

    return damage


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def fixed_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2


def fixed_reshape(model: onnx.ModelProto) -> None:
    shape = put(model, "shape", np.array([1, 16], np.int64))
    tensor = next(name for name in node(model, "gemm9").input if "mean8" in name)
    redirect(model, "gemm9", tensor, add(model, "gemm9", "Reshape", [tensor, shape], "reshaped"))


def two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("relu4", TensorProto.FLOAT, ["n", 16, 16, 16]))


def nan_weight(kind: type) -> Break:
    def damage(model: onnx.ModelProto) -> None:
        name = node(model, "gemm9").input[1]
        weight = constant(model, name).astype(kind)
        weight[0, 0] = np.nan
        put(model, name, weight)

    return damage


def scale_before_its_opset(kind: type) -> Break:
    def damage(model: onnx.ModelProto) -> None:
        put(model, "relu4.scale", kind(0.05))
        model.opset_import[0].version = 18

    return damage


def constant_node(model: onnx.ModelProto, name: str, **value: object) -> None:
    """A Constant node instead of the initializer, if there is one."""
    for tensor in [entry for entry in model.graph.initializer if entry.name == name]:
        model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, helper.make_node("Constant", [], [name], name, **value))


SPARSE = helper.make_sparse_tensor(
    numpy_helper.from_array(np.ones(2, np.float32), "values"),
    numpy_helper.from_array(np.array([1, 5], np.int64), "indices"),
    [4, 2**40],
)


def dynamic_quantize(model: onnx.ModelProto) -> None:
    outputs = ["dq.y", "dq.scale", "dq.zero"]
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["input"], outputs, "dynamic"))


def foreign(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.nobody", 1))
    tensor = node(model, "gemm9").input[0]
    redirect(model, "gemm9", tensor, add(model, "gemm9", "Mystery", [tensor], "mystery", domain="com.nobody"))


def branch(model: onnx.ModelProto, reads: str = "input") -> None:
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", [reads], ["v"])], "inner", [], [value])
    put(model, "condition", np.array(True))
    model.graph.node.append(
        helper.make_node("If", ["condition"], ["unused"], "branch", then_branch=graph, else_branch=graph)
    )


def no_codecs(model: onnx.ModelProto) -> None:
    model.CopyFrom(plain("residual"))


def as_made_for(target: str, network: str = "residual") -> Break:
    return lambda model: model.CopyFrom(quantized(network, target))


ERROR, WARNING, NOTE = Severity
RT, OV, TRT = "onnxruntime", "openvino", "tensorrt"
CASES = [
    *(Case("scale", ERROR, TRT, "relu4.quantize", scale_of(value), TRT)
      for value in (0.0, -1.0, float("nan"), float("inf"), 1e-40)),
    Case("computed-scale", ERROR, TRT, "relu4.quantize", computed_scale, TRT),
    Case("computed-scale", WARNING, RT, "relu4.quantize", computed_scale, RT),
    Case("scale-shape", ERROR, TRT, "conv0.weight.dequantize", too_few_scales, TRT),
    Case("unequal-pair", ERROR, TRT, "relu4.dequantize", unequal, TRT),
    Case("scale-axis", ERROR, TRT, "conv0", input_axis, TRT),
    Case("activation-scales", ERROR, TRT, "relu4.quantize", activation_scales, TRT),
    Case("activation-scales", WARNING, RT, "relu4.quantize", activation_scales, RT),
    Case("per-tensor-depthwise", ERROR, TRT, "conv3", per_tensor("conv3"), TRT),
    Case("per-tensor-depthwise", ERROR, RT, "conv3", per_tensor("conv3"), RT),
    Case("per-tensor-depthwise", ERROR, TRT, "conv3", two_filters_a_channel, TRT),
    Case("per-tensor-weights", WARNING, TRT, "conv0", per_tensor("conv0"), TRT),
    Case("per-tensor-weights", WARNING, TRT, "conv3", pairs_of_channels, TRT),
    Case("zero-point", ERROR, TRT, "relu4.quantize", zero_of(np.int8(3)), TRT),
    Case("unsigned", WARNING, TRT, "relu4.quantize", zero_of(np.uint8(0)), TRT),
    Case("signed-activations", WARNING, RT, "relu4.quantize", zero_of(np.int8(0)), RT),
    Case("code-type", ERROR, TRT, "relu4.quantize", zero_of(np.int16(0)), TRT),
    Case("code-type", WARNING, RT, "relu4.quantize", zero_of(np.uint16(0)), RT),
    *(Case("code-type", ERROR, TRT, "conv0.weight.dequantize", weights_of(kind), TRT) for kind in (np.int16, np.int32)),
    Case("quantized-bias", ERROR, TRT, "conv0", bias_codec, TRT),
    Case("float-bias", WARNING, RT, "gemm9", float_bias("gemm9"), RT),
    Case("float-conv-bias", NOTE, RT, "conv0", float_bias("conv0"), RT),
    Case("bias-scale", ERROR, RT, "conv0", doubled_bias_scale, RT),
    Case("residual-edge", ERROR, TRT, "add6", lambda model: pair(model, "conv5", "add6"), TRT),
    Case("residual-edge", ERROR, TRT, "add6", wrong_edge, TRT),
    Case("float-shortcut", NOTE, TRT, "add6", shortcut_bypassed, TRT),
    Case("inside-silu", ERROR, TRT, "mul2", lambda model: pair(model, "sigmoid1", "mul2"), TRT, "gated"),
    Case("inside-silu", ERROR, TRT, "mul2", lambda model: pair(model, "conv0", "sigmoid1"), TRT, "gated"),
    Case("output-codec", ERROR, TRT, "relu4", lambda model: pair(model, "conv3", "relu4"), TRT),
    Case("output-codec", ERROR, TRT, "last.dequantize", output_coded, TRT),
    Case("float-function", ERROR, TRT, "sigmoid8", lambda model: pair(model, "conv7", "sigmoid8"), TRT, "gated"),
    Case("shaping", WARNING, TRT, "reducemean8.flatten",
         lambda model: pair(model, "reducemean8.pooled", "reducemean8.flatten"), TRT),
    Case("late-clipping", WARNING, RT, "relu4", lambda model: pair(model, "conv3", "relu4", np.uint8), RT),
    Case("slow-shape", WARNING, TRT, "conv4", as_made_for(RT, "gated"), TRT, "gated"),
    Case("slow-shape", WARNING, TRT, "conv4", pooled_by_mean, TRT, "gated"),
    Case("slow-shape", WARNING, TRT, "matmul14", as_made_for(RT, "gated"), TRT, "gated"),
    Case("half-quantized", WARNING, TRT, "conv0", float_weights, TRT),
    Case("half-quantized", WARNING, RT, "conv0", float_weights, RT),
    Case("half-sum", WARNING, RT, "add6", half_sum, RT),
    Case("float-island", WARNING, RT, "maxpool7", float_pool, RT),
    Case("integer-island", WARNING, TRT, "maxpool7", lambda model: pair(model, "add6", "maxpool7")),
    Case("integer-island", WARNING, TRT, "mean", island_of_mean),
    Case("dangling", ERROR, TRT, "again", decoded_twice, TRT),
    Case("dangling", ERROR, TRT, "lone", without_partner, TRT),
    Case("dangling", ERROR, TRT, "lone", without_reader, TRT),
    Case("dangling", ERROR, TRT, "relu4.quantize", integers_to_conv, TRT),
    Case("repeated", WARNING, TRT, "new.quantize", lambda model: pair(model, "relu4.dequantized", "conv5"), TRT),
    Case("kernel-shape", ERROR, TRT, "conv0", without("kernel_shape", "conv0"), TRT),
    Case("opset", ERROR, TRT, "conv0.weight.dequantize", old_opset, TRT),
    Case("opset", ERROR, TRT, "relu4.quantize", zero_of(np.int16(0)), TRT),
    *(Case("opset", ERROR, TRT, "relu4.quantize", scale_before_its_opset(kind), TRT)
      for kind in (np.float16, ml_dtypes.bfloat16)),
    Case("batch", WARNING, TRT, "input", fixed_batch, TRT),
    Case("batch", WARNING, TRT, "logits", fixed_output, TRT),
    Case("batch", WARNING, TRT, "reshaped", fixed_reshape, TRT),
    Case("classifier", ERROR, TRT, "", two_outputs, TRT),
    Case("double-weights", ERROR, TRT, "d", lambda model: put(model, "d", np.ones(3)) and None, TRT),
    Case("double-weights", WARNING, RT, "d", lambda model: put(model, "d", np.ones(3)) and None, RT),
    Case("broken-weights", ERROR, TRT, "w13", nan_weight(np.float32), TRT),
    *(Case("broken-weights", ERROR, TRT, "w13", nan_weight(kind), TRT)
      for kind in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn)),
    Case("constant-form", ERROR, TRT, "text", lambda model: constant_node(model, "text", value_strings=["a", "b"])),
    Case("constant-form", ERROR, TRT, "sparse", lambda model: constant_node(model, "sparse", sparse_value=SPARSE)),
    Case("integer-format", ERROR, TRT, "dynamic", dynamic_quantize, TRT),
    Case("foreign-operators", ERROR, TRT, "mystery", foreign, TRT),
    Case("valid-types", ERROR, TRT, "", decoded_twice, TRT),
    Case("not-quantized", NOTE, TRT, "", no_codecs, TRT),
    Case("control-flow", WARNING, TRT, "branch", branch, TRT),
    Case("refused", ERROR, RT, "", foreign, RT),
    Case("refused", ERROR, OV, "", foreign, RT),
    Case("mostly-float", ERROR, RT, "", as_made_for(TRT), RT),
    Case("not-integer", WARNING, RT, "conv3", as_made_for(TRT), RT),
    Case("integer-share", NOTE, RT, "", as_made_for(RT)),
    Case("integer-share", NOTE, OV, "", as_made_for(RT)),
    Case("unchecked", NOTE, TRT, "", as_made_for(TRT)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}-{case.linted_for}")
def test_a_broken_rule_is_found_and_a_kept_one_is_not(case: Case) -> None:
    assert case.rule not in {found.rule for found in lint(case.good(), case.linted_for)}
    model = case.good()
    case.damage(model)
    found = {(found.rule, found.node): found for found in lint(model, case.linted_for)}
    finding = found[case.rule, case.where]
    assert finding.severity is case.severity
    assert finding.reason.endswith(".") or case.rule in ("refused", "valid-types")
    assert finding.remedy or finding.severity is Severity.NOTE


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} | TESTED_ELSEWHERE == {rule.name for rule in rules()}


@pytest.mark.parametrize("target", [RT, OV, TRT])
@pytest.mark.parametrize("network", ["residual", "gated"])
def test_placements_are_clean_for_their_target(network: str, target: str) -> None:
    found = lint(quantized(network, target), target)
    assert [entry for entry in found if entry.severity is not Severity.NOTE] == []


@pytest.mark.parametrize("left", [["conv0"], ["conv3"], ["conv5"], ["gemm9"], ["conv3", "conv5"]])
def test_layers_that_mixed_precision_leaves_in_float_are_clean(left: list[str]) -> None:
    """They read the codes that an integer convolution before them answers in."""
    model = prepare(NETWORKS["residual"]())
    view = GraphView(model)
    plan = discover.load(PLACEMENTS, RT, "target").plan(view).without(dict.fromkeys(left, "why"), view)
    mixed = insert_qdq(model, plan, dict.fromkeys(plan.observed(), (0.0, 6.0)))
    assert {entry.severity for entry in examine(mixed, RT).findings} == {NOTE}


def test_what_is_missing_of_a_half_quantised_layer_is_told() -> None:
    model = quantized("residual", TRT)
    float_weights(model)
    redirect(model, "conv5", "relu4.dequantized", "relu4")
    reasons = {entry.node: entry.reason for entry in lint(model, TRT) if entry.rule == "half-quantized"}
    assert reasons == {
        "conv0": "Only its input comes through Q/DQ, not its weights.",
        "conv5": "Only its weights come through Q/DQ, not its input.",
    }


@pytest.mark.parametrize(
    ("axis", "scales", "expected"),
    [(1, 16, set()), (0, 16, {"scale-axis"}), (1, 1, {"per-tensor-weights"})],
)
def test_weights_are_found_behind_a_transpose(axis: int, scales: int, expected: set[str]) -> None:
    """As exporters write linear layers and convolutions whose weights are stored inputs first."""
    model = quantized("residual", TRT)
    decode = node(model, "conv5.weight.dequantize")
    without("axis", decode.name)(model)
    decode.attribute.append(helper.make_attribute("axis", axis))
    put(model, "conv5.weight.scale", np.full(scales, 0.01, np.float32)[() if scales > 1 else 0])
    put(model, "conv5.weight.zero_point", np.zeros(scales, np.int8)[() if scales > 1 else 0])
    turned = add(model, "conv5", "Transpose", [decode.output[0]], "turned", perm=[1, 0, 2, 3])
    redirect(model, "conv5", decode.output[0], turned)
    found = {(entry.rule, entry.node) for entry in lint(model, TRT)}
    assert found == {(rule, "conv5") for rule in expected} | {("unchecked", "")}


@pytest.mark.parametrize(
    ("stored", "to", "axis", "scales", "expected"),
    [
        ((16, 16), (16, 16, 1, 1), 0, 16, set()),
        ((16, 16), (0, -1, 1, 1), 0, 16, set()),
        ((256,), (16, 16, 1, 1), 0, 1, {"per-tensor-weights"}),
        ((1, 16, 16), (16, 16, 1, 1), 1, 16, set()),
        ((1, 16, 16), (16, 16, 1, 1), 2, 16, {"scale-axis"}),
    ],
)
def test_weights_are_found_behind_a_reshape(
    stored: tuple[int, ...], to: tuple[int, ...], axis: int, scales: int, expected: set[str]
) -> None:
    model = quantized("residual", TRT)
    decode = node(model, "conv5.weight.dequantize")
    without("axis", decode.name)(model)
    decode.attribute.append(helper.make_attribute("axis", axis))
    put(model, "conv5.weight.quantized", constant(model, "conv5.weight.quantized").reshape(stored))
    put(model, "conv5.weight.scale", np.full(scales, 0.01, np.float32)[() if scales > 1 else 0])
    put(model, "conv5.weight.zero_point", np.zeros(scales, np.int8)[() if scales > 1 else 0])
    shape = put(model, "shape", np.array(to, np.int64))
    redirect(
        model, "conv5", decode.output[0], add(model, "conv5", "Reshape", [decode.output[0], shape], "shaped")
    )
    found = {(entry.rule, entry.node) for entry in lint(model, TRT)}
    assert found == {(rule, "conv5") for rule in expected} | {("unchecked", "")}


@pytest.mark.parametrize("shape", [np.int64(256), np.array([[16, 16, 1, 1]])], ids=["number", "matrix"])
def test_a_shape_that_is_no_row_of_numbers_is_not_followed(shape: np.ndarray) -> None:
    model = quantized("residual", TRT)
    decoded = node(model, "conv5").input[1]
    put(model, "shape", shape)
    redirect(model, "conv5", decoded, add(model, "conv5", "Reshape", [decoded, "shape"], "shaped"))
    graph = LintGraph(model, TRT, FileFacts())
    assert graph.origin("shaped") == "shaped"
    assert "shaped" not in graph.tensors


def test_what_a_branch_alone_reads_is_read() -> None:
    model = quantized("residual", TRT)
    without_reader(model)
    assert "dangling" in {entry.rule for entry in lint(model, TRT)}
    branch(model, reads="lone")
    assert "dangling" not in {entry.rule for entry in lint(model, TRT)}


@pytest.mark.parametrize(("network", "left"), [("residual", ("Conv", "Add")), ("gated", ("Mul",))])
def test_codes_of_an_integer_operator_may_be_decoded_for_a_sum_in_float(
    network: str, left: tuple[str, ...]
) -> None:
    """As mixed precision leaves a sum and the convolution before it, or the product of a HardSwish."""
    model = plain(network)
    view = GraphView(model)
    plan = discover.load(PLACEMENTS, RT, "target").plan(view)
    (last,) = (entry for entry in view.nodes if entry.op_type == "Add")
    freed = [last, *(view.producer[name] for name in last.input)]
    names = {entry.name: "accuracy" for entry in freed if entry.op_type in left}
    assert names
    plan = plan.without(names, view)
    quantized_model = insert_qdq(model, plan, dict.fromkeys(plan.observed(), (0.0, 6.0)))
    assert not {"half-sum"} & {entry.rule for entry in lint(quantized_model, RT)}


@pytest.mark.parametrize("maker", ["Add", "Concat", "ConvTranspose"])
def test_codes_of_what_runs_in_float_need_not_be_decoded(maker: str) -> None:
    """A sum of which one operand alone is coded, for one, and what has no integer kernel, is float itself."""
    b = Builder()
    x = b.conv("input", 3, 8)
    y = b.conv("input", 3, 4 if maker == "Concat" else 8)
    if maker == "ConvTranspose":
        weight = b.constant(b.rng.standard_normal((8, 8, 1, 1)).astype(np.float32))
        made = b.op(maker, x, weight, kernel_shape=[1, 1])
    else:
        x = b.conv("input", 3, 4) if maker == "Concat" else x
        made = b.op(maker, x, y, **({"axis": 1} if maker == "Concat" else {}))
    total = b.op("Add", made, b.op("Cos", b.conv("input", 3, 8)))
    model = prepare(b.model(b.op("Flatten", b.op("GlobalAveragePool", total)), 8, None, 20))
    pair(model, x, made, np.uint8)
    if maker == "ConvTranspose":
        decode_weight(model, made)
    put(model, "sum.scale", np.float32(0.05))
    put(model, "sum.zero", np.uint8(0))
    coded = add(model, total, "QuantizeLinear", [made, "sum.scale", "sum.zero"], "sum.q")
    decoded = add(model, total, "DequantizeLinear", [coded, "sum.scale", "sum.zero"], "sum.dq")
    redirect(model, total, made, decoded)
    found = {(entry.rule, entry.node) for entry in lint(model, RT)}
    assert ("half-sum", total) in found


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (per_tensor("conv3"), "per-tensor-depthwise"),
        (without("kernel_shape", "conv3"), "kernel-shape"),
        (swapped_axis, "scale-axis"),
        (lambda model: None, ""),
    ],
)
def test_weights_are_found_behind_an_identity(damage: Break, rule: str) -> None:
    model = quantized("residual", TRT)
    decoded = node(model, "conv3").input[1]
    redirect(model, "conv3", decoded, add(model, "conv3", "Identity", [decoded], "same"))
    damage(model)
    expected = {(rule, "conv3"), ("unchecked", "")} if rule else {("unchecked", "")}
    assert {(entry.rule, entry.node) for entry in lint(model, TRT)} == expected


@pytest.mark.parametrize("target", [RT, OV, TRT])
def test_a_float_network_is_clean(target: str) -> None:
    assert [entry.rule for entry in lint(plain("residual"), target)] == ["not-quantized"]


def test_rules_do_not_judge_other_targets() -> None:
    zero_point = [rule for rule in rules() if rule.name == "zero-point"]
    assert [set(rule.severity) for rule in zero_point] == [{"tensorrt"}]
    assert "zero-point" not in {found.rule for found in lint(quantized("residual", RT), RT)}
    assert "zero-point" in {found.rule for found in lint(quantized("residual", RT), TRT)}


@pytest.mark.parametrize(("asked", "is_found"), [(17, True), (20, False), (None, False)])
def test_another_opset_than_asked_for_is_found(asked: int | None, is_found: bool) -> None:
    found = examine(quantized("residual", TRT), TRT, FileFacts(asked_opset=asked)).findings
    assert ("opset-not-honoured" in {entry.rule for entry in found}) == is_found


def test_errors_come_first_and_unnamed_nodes_are_told_by_what_they_make() -> None:
    model = quantized("residual", RT)
    for entry in model.graph.node:
        entry.name = ""
    found = lint(model, TRT)
    order = [list(Severity).index(entry.severity) for entry in found]
    assert order == sorted(order)
    assert "Add → add6" in {entry.node for entry in found if entry.rule == "residual-edge"}


def test_constants_written_as_nodes_count_as_constants() -> None:
    """As other tools write scales and zero points."""
    model = quantized("residual", TRT)
    zero_of(np.int8(3))(model)
    (zero,) = [entry for entry in model.graph.initializer if entry.name == "relu4.zero_point"]
    constant_node(model, "relu4.zero_point", value=zero)
    constant_node(model, "relu4.scale", value_float=0.05)
    constant_node(model, "conv0.weight.scale", value_floats=[0.05] * 16)
    rules_found = {entry.rule for entry in lint(model, TRT)}
    assert "zero-point" in rules_found
    assert "computed-scale" not in rules_found


def test_weights_that_are_quantised_by_nodes_count_as_weights() -> None:
    """Other tools keep float weights in the file, with Q and DQ behind them."""
    model = quantized("residual", TRT)
    weight = put(model, "float.weight", np.ones((16, 3, 3, 3), np.float32))
    decode = node(model, "conv0.weight.dequantize")
    axis = {"axis": 0}
    decode.input[0] = add(model, decode.name, "QuantizeLinear", [weight, *decode.input[1:]], "q", **axis)
    assert [entry.rule for entry in lint(model, TRT)] == ["unchecked"]


def test_sparse_weights_are_weights_of_unknown_value() -> None:
    model = quantized("residual", TRT)
    name = node(model, "gemm9").input[1]
    constant_node(model, name, sparse_value=SPARSE)
    assert {entry.rule for entry in lint(model, TRT)} == {"constant-form", "unchecked"}


@pytest.mark.parametrize("channels", [1, 16])
def test_an_absent_zero_point_is_zero_of_the_type_that_is_decoded(channels: int) -> None:
    """Also where Q has one for every channel."""
    model = quantized("residual", TRT)
    if channels == 1:
        decode = node(model, "relu4.dequantize")
    else:
        weight = put(model, "float.weight", np.ones((16, 3, 3, 3), np.float32))
        decode = node(model, "conv0.weight.dequantize")
        decode.input[0] = add(model, decode.name, "QuantizeLinear", [weight, *decode.input[1:]], "q", axis=0)
    del decode.input[2]
    assert [entry.rule for entry in lint(model, TRT)] == ["unchecked"]


def test_a_pair_along_two_axes_is_unequal() -> None:
    model = quantized("residual", TRT)
    weight = put(model, "float.weight", np.ones((16, 16, 1, 1), np.float32))
    decode = node(model, "conv5.weight.dequantize")
    decode.input[0] = add(model, decode.name, "QuantizeLinear", [weight, *decode.input[1:]], "q", axis=1)
    assert ("unequal-pair", decode.name) in {(entry.rule, entry.node) for entry in lint(model, TRT)}


def test_a_defect_of_a_pair_is_told_once() -> None:
    model = quantized("residual", TRT)
    scale_of(0.0)(model)
    assert [entry.node for entry in lint(model, TRT) if entry.severity is ERROR] == ["relu4.quantize"]


def test_leaky_relu_cuts_nothing_off() -> None:
    model = quantized("residual", RT)
    node(model, "relu4").op_type = "LeakyRelu"
    pair(model, "conv3", "relu4", np.uint8)
    assert "late-clipping" not in {entry.rule for entry in lint(model, RT)}


def test_weights_in_blocks_have_no_axis_of_channels() -> None:
    """As in INT4: a scale for every 8 inputs of an output."""
    model = quantized("residual", TRT)
    model.opset_import[0].version = 21
    without("axis", "conv5.weight.dequantize")(model)
    decode = node(model, "conv5.weight.dequantize")
    decode.attribute.extend([helper.make_attribute("axis", 1), helper.make_attribute("block_size", 8)])
    put(model, "conv5.weight.scale", np.full((16, 2, 1, 1), 0.01, np.float32))
    put(model, "conv5.weight.zero_point", np.zeros((16, 2, 1, 1), np.int8))
    assert [entry.rule for entry in lint(model, TRT)] == ["unchecked"]


@pytest.mark.parametrize("name", ["", "same"])
def test_convolutions_are_counted_where_names_are_missing_or_equal(name: str) -> None:
    model = quantized("residual", TRT)
    for entry in model.graph.node:
        entry.name = name
    (found,) = [entry for entry in lint(model, RT) if entry.rule == "mostly-float"]
    assert "0 of 3 quantised convolutions" in found.reason


PRECISIONS = [Precision.FP16, Precision.BF16]


@pytest.mark.parametrize("network", ["residual", "gated"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_16_bit_files_are_looked_at(network: str, precision: Precision) -> None:
    model = to_sixteen_bit(plain(network), precision, set())
    for target in (TRT, OV):
        assert [entry.rule for entry in lint(model, target)] == ["not-quantized"]
    refusals = ["refused"] if precision is Precision.BF16 else []
    assert [entry.rule for entry in lint(model, RT)] == [*refusals, "not-quantized"]
    name = next(entry for entry in model.graph.node if entry.op_type == "Conv").input[1]
    put(model, name, np.full_like(constant(model, name), np.inf))
    assert ("broken-weights", name) in {(entry.rule, entry.node) for entry in lint(model, TRT)}


@pytest.mark.parametrize("network", ["residual", "gated"])
def test_float8_files_are_clean_for_tensorrt_alone(network: str) -> None:
    model = prepare(NETWORKS[network](), FP8_OPSET)
    plan = discover.load(PLACEMENTS, TRT, "target").plan(GraphView(model))
    plan.grid = Grid(symmetric=True, float8=True)
    float8 = insert_qdq(model, plan, dict.fromkeys(plan.observed(), (-3.0, 3.0)))
    assert {entry.severity for entry in lint(float8, TRT)} == {NOTE}
    assert {"code-type", "refused"} & {entry.rule for entry in lint(float8, RT)}
    float8.opset_import[0].version = 18
    assert "opset" in {entry.rule for entry in lint(float8, TRT)}
