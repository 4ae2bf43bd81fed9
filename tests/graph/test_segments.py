"""Points at which one tensor is alive."""

from __future__ import annotations

from optkit.graph.qdq_view import GraphView
from optkit.graph.segments import single_value_points
from tests.small_networks import Builder, residual_network


def test_a_chain_can_be_cut_behind_every_node() -> None:
    builder = Builder()
    x = builder.clip(builder.conv("input", 3, 4))
    x = builder.op("GlobalAveragePool", builder.conv(x, 4, 5))
    view = GraphView(builder.model(builder.op("Flatten", x), 5, None, 17))
    assert single_value_points(view) == list(range(1, len(view.nodes)))


def test_a_gate_keeps_two_tensors_alive() -> None:
    builder = Builder()
    x = builder.silu(builder.conv("input", 3, 4))  # Conv, Sigmoid, Mul
    view = GraphView(builder.model(builder.op("Flatten", builder.op("GlobalAveragePool", x)), 4, None, 17))
    assert [node.op_type for node in view.nodes[:3]] == ["Conv", "Sigmoid", "Mul"]
    assert single_value_points(view) == [1, 3, 4]  # not between Sigmoid and Mul, which reads the Conv too


def test_no_point_lies_inside_a_residual_block() -> None:
    view = GraphView(residual_network())
    points = single_value_points(view)
    for node in view.nodes:
        if node.op_type == "Add":
            made = [view.nodes.index(view.producer[name]) for name in node.input if name in view.producer]
            inside = range(min(made) + 2, view.nodes.index(node) + 1)
            assert not set(points) & set(inside)
    assert points
