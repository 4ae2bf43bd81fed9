"""Kernels under the names that the runtimes have for them, and the nodes that they stand for."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from optkit.measure.kernel_origins import kernel_nodes, node_times
from optkit.runtimes._kernels import KernelTime

NODES = [
    ("Conv", ["x", "w1"], "getitem", "node_Conv_1"),
    ("Relu", ["getitem"], "relu", "node_relu"),
    ("Conv", ["relu", "w2"], "getitem_3", "node_Conv_12"),
    ("Sigmoid", ["getitem_3"], "sigmoid", "node_sigmoid"),
    ("Mul", ["getitem_3", "sigmoid"], "silu", "node_silu"),
    ("Add", ["silu", "relu"], "add", ""),
    ("Gemm", ["add", "w3"], "logits", "node_Gemm"),
]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    nodes = [helper.make_node(op, inputs, [output], name) for op, inputs, output, name in NODES]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, None)],
        [value("logits", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph)


def nodes_of(model: onnx.ModelProto, *kernels: KernelTime) -> list[tuple[str, ...]]:
    found = kernel_nodes(model, kernels)
    return [found[kernel.name] for kernel in kernels]


@pytest.mark.parametrize(
    ("kernel", "kind", "nodes"),
    [
        ("node_Conv_1_token_3", "Conv", ("node_Conv_1",)),
        ("node_Conv_12", "Conv", ("node_Conv_12",)),  # not node_Conv_1
        ("getitem_3_nchwc", "Conv", ("node_Conv_12",)),  # not getitem
        ("relu_nchwc", "Conv", ("node_Conv_1", "node_relu")),
        ("node_silu/QuickGeluFusion/", "QuickGelu", ("node_silu",)),
        ("add_output", "Add", ("add",)),
        ("adding", "Add", ()),
        ("ReorderOutput_token_6", "ReorderOutput", ()),
    ],
)
def test_names_of_onnx_runtime(model, kernel: str, kind: str, nodes: tuple[str, ...]) -> None:
    assert nodes_of(model, KernelTime(kernel, kind, 1.0)) == [nodes]


def test_a_convolution_with_a_kernel_of_its_own_is_not_in_another(model) -> None:
    found = nodes_of(model, KernelTime("node_Conv_12", "Conv", 1.0), KernelTime("add", "Conv", 1.0))
    assert found == [("node_Conv_12",), ("node_Conv_1", "add")]


def test_nodes_that_the_runtime_names_itself(model) -> None:
    fused = KernelTime("a", "Convolution", 1.0, ("node_Conv_12", "Multiply_28", "node_silu"))
    added = KernelTime("node_Conv_12_f32_u8_add", "Reorder", 1.0, ())
    split = KernelTime("b", "FullyConnected", 1.0, ("node_Gemm/WithoutBiases", "node_Gemm"))
    assert nodes_of(model, fused, added, split) == [("node_Conv_12", "node_silu"), (), ("node_Gemm",)]


def test_a_compiled_piece_of_the_graph_has_every_node_between_its_ends(model) -> None:
    piece = KernelTime("p", "ForeignNode", 1.0, ("node_relu", "node_silu"))
    assert nodes_of(model, piece) == [("node_relu", "node_Conv_12", "node_sigmoid", "node_silu")]


def test_times_add_up_by_node_and_by_kind_of_what_is_added(model) -> None:
    kernels = [
        KernelTime("relu_nchwc", "Conv", 2.0),
        KernelTime("ReorderInput", "ReorderInput", 0.5),
        KernelTime("ReorderInput_token_1", "ReorderInput", 0.25),
    ]
    assert node_times(model, kernels) == {"node_Conv_1": 2.0, "ReorderInput": 0.75}
