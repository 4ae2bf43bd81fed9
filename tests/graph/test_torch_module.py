from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from optkit.graph.qdq import QdqPlan, channel_scales, insert_qdq
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.graph.torch_module import GraphModule
from optkit.graph.torch_operators import OPERATORS, Unsupported
from optkit.stages.quantize.execute import open_session
from optkit.stages.quantize.placement import onnxruntime as for_onnxruntime
from optkit.stages.quantize.placement import tensorrt as for_tensorrt
from tests.small_networks import Builder, gated_network, residual_network, textured_images

IMAGES = textured_images(6)


def answer(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = open_session(model)
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


def planned(model: onnx.ModelProto, placement) -> tuple[QdqPlan, dict[str, tuple[float, float]]]:
    plan = placement.plan(GraphView(model))
    return plan, dict.fromkeys(plan.observed(), (-3.0, 5.0))


@pytest.mark.parametrize("network", [residual_network, gated_network])
def test_computes_what_onnxruntime_computes(network) -> None:
    model = prepare(network())
    with torch.no_grad():
        found = GraphModule(model)(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(found, answer(model, IMAGES), atol=1e-5)


@pytest.mark.parametrize("network", [residual_network, gated_network])
@pytest.mark.parametrize("placement", [for_onnxruntime, for_tensorrt])
def test_rounds_as_the_file_does(network, placement) -> None:
    """To within the rare value that lies between two codes and is rounded to the other one."""
    model = prepare(network())
    plan, ranges = planned(model, placement)
    view = GraphView(model)
    grids = {
        node.name: channel_scales(view.constant(node.input[1]), axis)
        for node in view.nodes
        if node.name in plan.nodes and (axis := view.weight_axis(node)) is not None
    }
    module = GraphModule(model, plan, plan.scales(ranges), grids)
    with torch.no_grad():
        simulated = module(torch.from_numpy(IMAGES)).numpy()
        exact = GraphModule(model)(torch.from_numpy(IMAGES)).numpy()
    file = answer(insert_qdq(model, plan, ranges), IMAGES)
    assert np.abs(simulated - file).mean() < 0.1 * np.abs(exact - file).mean()


def test_gradients_pass_through_the_rounding() -> None:
    model = prepare(residual_network())
    plan, ranges = planned(model, for_onnxruntime)
    module = GraphModule(model, plan, plan.scales(ranges))
    module(torch.from_numpy(IMAGES)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_parameters_come_back_under_their_own_names() -> None:
    model = prepare(residual_network())
    module = GraphModule(model)
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = module.initializers()
    assert found.keys() == {name for name, value in given.items() if value.ndim and value.dtype == np.float32}
    assert all((found[name] == given[name]).all() for name in found)


def test_a_partial_run_forgets_what_no_later_step_reads() -> None:
    module = GraphModule(prepare(residual_network()))
    values = {module.input: torch.from_numpy(IMAGES)}
    with torch.no_grad():
        module.run(values, range(2))
        assert module.input not in values
        module.run(values, range(2, len(module.steps)))
    assert values.keys() == {module.output}


def test_batch_normalisation_in_front_of_a_convolution() -> None:
    """Which `prepare` cannot fold, as in networks of pre-activation blocks."""
    b = Builder()
    numbers = [b.constant(b.rng.uniform(0.5, 2, 16).astype(np.float32)) for _ in range(4)]
    x = b.op("Relu", b.op("BatchNormalization", b.op("Relu", b.conv("input", 3, 16)), *numbers, epsilon=1e-3))
    x = b.op("Flatten", b.op("GlobalAveragePool", b.conv(x, 16, 4)))
    model = prepare(b.model(x, 4, None, 20))
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}
    with torch.no_grad():
        found = GraphModule(model)(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(found, answer(model, IMAGES), atol=1e-5)


def test_a_convolution_over_one_dimension_is_named() -> None:
    model = residual_network()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == conv.input[1])
    weight.dims[:] = [weight.dims[0], weight.dims[1], weight.dims[2] * weight.dims[3]]
    with pytest.raises(Unsupported, match="Conv over other than two dimensions"):
        GraphModule(model)


def test_an_unknown_operator_is_named() -> None:
    model = residual_network()
    model.graph.node[-1].op_type = "Einsum"
    with pytest.raises(Unsupported, match="Einsum"):
        GraphModule(model)


def one_node(op: str, x: tuple[int, ...], others: list, **attributes) -> onnx.ModelProto:
    names = [f"c{index}" for index in range(len(others))]
    node = helper.make_node(op, ["x", *names], ["y"], "node", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in zip(names, others, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (
            one_node("Conv", (1, 4, 6, 6), [np.ones((4, 4, 3, 3), np.float32)], auto_pad="SAME_UPPER"),
            "auto_pad",
        ),
        (one_node("MaxPool", (1, 4, 6, 6), [], kernel_shape=[3, 3], auto_pad="SAME_LOWER"), "auto_pad"),
        (one_node("Reshape", (2, 4), [np.array([2, 4])]), "batch size"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(model: onnx.ModelProto, what: str) -> None:
    with pytest.raises(Unsupported, match=what):
        GraphModule(model)


def test_the_most_that_is_alive_is_the_residual_branch() -> None:
    """The image's 16 · 16 pixels: the shortcut of 16 channels, the layer's result, and that of the one before."""
    module = GraphModule(prepare(residual_network()))
    assert module.peak_values(torch.zeros(1, 3, 16, 16)) == 3 * 16 * 16 * 16


# Operator, shape of x, further inputs, attributes.
X = (2, 4, 6, 6)
CASES = [
    ("Add", X, [np.ones((1, 4, 1, 1), np.float32)], {}),
    ("Sub", X, [np.ones((1, 4, 1, 1), np.float32)], {}),
    ("Mul", X, [np.full((1, 4, 1, 1), 3, np.float32)], {}),
    ("Div", X, [np.full((1, 4, 1, 1), 3, np.float32)], {}),
    *[(op, X, [], {}) for op in ("Relu", "Sigmoid", "Tanh", "Erf", "HardSwish", "Identity", "Dropout")],
    ("LeakyRelu", X, [], {"alpha": 0.3}),
    ("HardSigmoid", X, [], {"alpha": 0.3, "beta": 0.4}),
    ("Gelu", X, [], {"approximate": "tanh"}),
    ("Gelu", X, [], {}),
    ("Softmax", X, [], {"axis": 1}),
    ("Clip", X, [np.float32(-0.5), np.float32(0.7)], {}),
    (
        "BatchNormalization",
        X,
        list(np.linspace(0.5, 2, 16, dtype=np.float32).reshape(4, 4)),
        {"epsilon": 0.1},
    ),
    ("Conv", X, [np.ones((8, 2, 3, 3), np.float32)], {"group": 2, "pads": [0, 0, 1, 1], "strides": [2, 2]}),
    ("Conv", X, [np.ones((4, 1, 3, 3), np.float32)], {"group": 4, "pads": [2] * 4, "dilations": [2, 2]}),
    ("Gemm", (3, 5), [np.ones((5, 4), np.float32), np.ones(4, np.float32)], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", (5, 3), [np.ones((4, 5), np.float32)], {"transA": 1, "transB": 1}),
    ("MatMul", (3, 5), [np.ones((5, 4), np.float32)], {}),
    ("GlobalAveragePool", X, [], {}),
    ("MaxPool", X, [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("MaxPool", X, [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", X, [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", X, [], {"kernel_shape": [2, 2], "strides": [2, 2], "count_include_pad": 1}),
    ("AveragePool", X, [], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "count_include_pad": 1}),
    ("AveragePool", X, [], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}),
    ("ReduceMean", X, [np.array([2, 3])], {"keepdims": 0}),
    ("ReduceMean", X, [], {}),
    ("Flatten", X, [], {}),
    ("Flatten", X, [], {"axis": 2}),
    ("Flatten", X, [], {"axis": 0}),
    ("Reshape", X, [np.array([0, -1])], {}),
    ("Transpose", X, [], {"perm": [0, 2, 3, 1]}),
    ("Transpose", X, [], {}),
    ("Squeeze", (2, 4, 1, 1), [np.array([2, 3])], {}),
    ("Squeeze", (2, 4, 1, 1), [], {}),
    ("Unsqueeze", (2, 4), [np.array([2, 3])], {}),
    ("Concat", X, [np.ones(X, np.float32)], {"axis": 1}),
    ("Pad", X, [np.array([0, 0, 1, 2, 0, 0, 3, 4]), np.float32(7)], {}),
    ("Pad", X, [np.array([0, 0, 1, 2, 0, 0, 3, 4])], {"mode": "reflect"}),
    ("Pad", X, [np.array([0, 0, 1, 2, 0, 0, 3, 4])], {"mode": "edge"}),
    ("Pad", X, [np.array([0, 0, 1, 2, 0, 0, 3, 4])], {"mode": "wrap"}),
    ("Conv", X, [np.ones((4, 4, 3, 3), np.float32)], {"auto_pad": "VALID"}),
]


@pytest.mark.parametrize(("op", "shape", "others", "attributes"), CASES)
def test_every_operator_is_that_of_onnxruntime(op: str, shape, others, attributes) -> None:
    model = one_node(op, shape, others, **attributes)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        found = GraphModule(model)(torch.from_numpy(x)).numpy()
    expected = answer(model, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_operator_is_left_untried() -> None:
    assert {case[0] for case in CASES} == OPERATORS.keys()
