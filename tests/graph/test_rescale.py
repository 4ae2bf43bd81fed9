from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from onnx import helper

from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView, attribute
from optkit.graph.rescale import ChannelGroup, channel_groups, column_magnitudes, rescale
from tests.small_networks import Builder, gated_network, residual_network, textured_images


def exported(arch: str) -> onnx.ModelProto:
    """A network with random weights and BatchNorm statistics that keep activations in size."""
    torch.manual_seed(0)
    network = timm.create_model(arch, num_classes=10).train()
    with torch.no_grad():
        network(torch.randn(16, 3, 64, 64))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter, which is told so, is ten times as fast
        torch.onnx.export(
            network.eval(), (torch.zeros(2, 3, 64, 64),), file, input_names=["input"],
            output_names=["logits"], dynamo=False, opset_version=17,
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    return prepare(onnx.load_from_string(file.getvalue()))


def answers(model: onnx.ModelProto, pixels: np.ndarray, tensors: list[str]) -> list[np.ndarray]:
    """The logits of the model as it is, then what it computes in `tensors`."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name in tensors:
        probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    found = []
    for one in (model, probe):
        session = onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"])
        found.append(session.run(None, {"input": pixels}))
    (logits, *_), (_, *others) = found
    return [logits, *others]


def drawn(groups: list[ChannelGroup], seed: int = 0) -> dict[ChannelGroup, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {group: 100 ** rng.uniform(-0.5, 0.5, group.channels) for group in groups}


def check_exact(model: onnx.ModelProto, pixels: np.ndarray) -> list[ChannelGroup]:
    """Rescale all groups at once: the logits stay, and every channel of every tensor takes its factor."""
    groups = channel_groups(GraphView(model))
    factors = drawn(groups)
    rescaled = rescale(model, factors)
    onnx.checker.check_model(rescaled, full_check=True)
    assert [node.name for node in rescaled.graph.node] == [node.name for node in model.graph.node]
    tensors = [group.tensors[-1] for group in groups]
    (expected, *befores), (found, *afters) = (answers(one, pixels, tensors) for one in (model, rescaled))
    assert np.ptp(expected) > 0.1
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    for group, before, after in zip(groups, befores, afters, strict=True):
        shape = (len(pixels), group.channels, -1)
        grown = before.reshape(shape) * factors[group][:, None]
        assert np.abs(after.reshape(shape) - grown).max() <= 1e-3 * np.abs(grown).max()
    return groups


@pytest.mark.parametrize(
    ("arch", "expected", "linear"),
    [
        ("efficientnet_lite0", 7, 7),  # every ReLU6 ends a group: the stages' bottlenecks remain
        ("efficientnet_b0", 7, 7),
        ("resnet18", 12, 0),  # four stages and the inside of eight blocks
        ("mobilenetv3_small_100", 19, 5),
    ],
)
def test_networks_answer_the_same_after_rescaling_all_their_groups(
    arch: str, expected: int, linear: int
) -> None:
    pixels = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    groups = check_exact(exported(arch), pixels)
    assert (len(groups), sum(group.linear for group in groups)) == (expected, linear)
    assert len({name for group in groups for name in group.tensors}) == sum(len(g.tensors) for g in groups)


def test_clip_silu_and_hardswish_end_groups() -> None:
    """Only the depthwise Relu output remains of the one network, nothing of the other."""
    model = prepare(residual_network())
    (group,) = check_exact(model, textured_images(3))
    makers = [GraphView(model).producer[name].op_type for name in group.tensors]
    assert makers == ["Conv", "Relu"]
    assert channel_groups(GraphView(prepare(gated_network()))) == []


def network(middle: str) -> onnx.ModelProto:
    """Conv, the operators under test, Conv, flattened maps, Gemm."""
    b = Builder()
    x = b.conv("input", 3, 8)
    if middle == "pools":
        x = b.op("AveragePool", b.op("MaxPool", x, kernel_shape=[2, 2]), kernel_shape=[2, 2])
    elif middle == "slopes":
        x = b.op("LeakyRelu", x, alpha=0.2)
        x = b.op("PRelu", b.conv(x, 8, 8), b.constant(np.full((8, 1, 1), 0.3, np.float32)))
    elif middle == "gate":  # reads the group through a convolution of its own
        x = b.op("Relu", x)
        x = b.op("Mul", b.op("Sigmoid", b.conv(b.op("GlobalAveragePool", x), 8, 8, 1)), x)
    elif middle == "grouped":
        x = b.op("Relu", b.conv(b.op("Relu", x), 8, 16, groups=4))
        x = b.op("Relu", b.conv(x, 16, 32, groups=16))  # depthwise with two outputs per channel
        x = b.conv(x, 32, 8)
    elif middle == "sum":  # a layer that reads and makes the same channels
        x = b.op("Add", b.conv(x, 8, 8), x)
    elif middle == "shared":  # one weight, two readers
        first = b.conv(b.op("Relu", x), 8, 8)
        weights = b.nodes[-1].input[1:]
        x = b.op("Conv", b.op("Relu", first), *weights, pads=[1] * 4)
    elif middle == "added constant":
        x = b.op("Add", b.op("Relu", x), b.constant(np.ones((8, 1, 1), np.float32)))
    elif middle == "concat":
        x = b.conv(b.op("Concat", x, x, axis=1), 16, 8)
    elif middle == "mask of channels":
        x = b.op("Add", x, b.conv("input", 3, 1))
    elif middle == "bounded":
        x = b.clip(x)
    elif middle == "square":
        x = b.op("Mul", x, x)
    x = b.op("Relu", b.conv(x, 8, 4))
    size = {"pools": 14, "reshaped": 1}.get(middle, 16)
    if middle == "reshaped":  # as exporters flatten pooled maps
        shape = b.constant(np.array([-1, 4], np.int64))
        x = b.op("Reshape", b.op("GlobalAveragePool", x), shape)
    else:
        x = b.op("Flatten", x)
    weight = b.rng.standard_normal((12, 4 * size * size)).astype(np.float32) / size
    x = b.op("Relu", b.op("Gemm", x, b.constant(weight), b.constant(np.ones(12, np.float32)), transB=1))
    x = b.op("MatMul", x, b.constant(b.rng.standard_normal((12, 4)).astype(np.float32)))
    return b.model(x, 4, None, 17)


BEHIND = 2  # groups of the flattened maps and of the Gemm


@pytest.mark.parametrize(
    ("middle", "expected"),
    [("pools", 1), ("slopes", 2), ("gate", 1), ("grouped", 4), ("sum", 1), ("shared", 3), ("reshaped", 1)],
)
def test_homogeneous_operators_join_channels(middle: str, expected: int) -> None:
    groups = check_exact(prepare(network(middle)), textured_images(3))
    assert len(groups) == expected + BEHIND


@pytest.mark.parametrize("middle", ["added constant", "concat", "mask of channels", "bounded", "square"])
def test_other_operators_keep_their_channels(middle: str) -> None:
    groups = check_exact(prepare(network(middle)), textured_images(3))
    assert len(groups) == BEHIND + (middle == "concat")


def test_a_tensor_that_is_an_output_keeps_its_values() -> None:
    model = prepare(network("sum"))
    every = channel_groups(GraphView(model))
    model.graph.output.append(helper.make_tensor_value_info(every[0].tensors[0], 1, None))
    assert channel_groups(GraphView(model)) == every[1:]


def test_a_graph_with_bodies_has_no_groups() -> None:
    model = prepare(network("sum"))
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["flag"], [], "if", then_branch=body, else_branch=body))
    assert channel_groups(GraphView(model)) == []


def test_factors_must_be_positive_one_per_channel() -> None:
    model = prepare(residual_network())
    (group,) = channel_groups(GraphView(model))
    for wrong in (np.zeros(16), np.full(16, np.inf), np.ones(4)):
        with pytest.raises(ValueError, match="16 positive factors"):
            rescale(model, {group: wrong})


def test_columns_are_measured_against_their_row_and_depthwise_layers_do_not_count() -> None:
    model = prepare(residual_network())
    (group,) = channel_groups(GraphView(model))
    view = GraphView(model)
    (reader,) = (node for node in view.nodes if node.name in group.consumers)
    weight = np.abs(view.constant(reader.input[1])[:, :, 0, 0])
    expected = (weight / weight.max(axis=1, keepdims=True)).max(axis=0)
    np.testing.assert_allclose(column_magnitudes(view, group), expected, rtol=1e-6)
    grouped = GraphView(prepare(network("grouped")))
    readers = {node.name: attribute(node, "group", 1) for node in grouped.nodes if node.op_type == "Conv"}
    (depthwise,) = (
        group for group in channel_groups(grouped) if {readers.get(name) for name in group.consumers} == {16}
    )
    assert not column_magnitudes(grouped, depthwise).any()


def test_what_another_layer_shares_is_not_rescaled_for_it() -> None:
    """Two layers with one weight, of which one reads rescaled channels."""
    given = network("shared")
    users = [node for node in given.graph.node if node.op_type == "Conv"][1:3]
    assert users[0].input[1] == users[1].input[1]
    model = prepare(given)
    rescaled = rescale(model, drawn(channel_groups(GraphView(model))[:1]))

    def weights(one: onnx.ModelProto) -> list[np.ndarray]:
        nodes = {node.name: node for node in one.graph.node}
        return [GraphView(one).constant(nodes[user.name].input[1]) for user in users]

    before, after = weights(model), weights(rescaled)
    assert not np.array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
