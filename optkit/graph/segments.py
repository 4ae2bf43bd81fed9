"""Where a network is as narrow as one tensor: it can be cut there, and be worked on part by part."""

from __future__ import annotations

from optkit.graph.qdq_view import GraphView


def single_value_points(view: GraphView) -> list[int]:
    """The indices i at which exactly one activation is still to be read by `view.nodes[i]` or a later node.

    Inside a residual or an SE block there are two or more. Never 0 nor behind the last node; tensors of shapes count
    as activations, so that nothing is cut off from what it needs.
    """
    position = {node.name: index for index, node in enumerate(view.nodes)}
    last_use = {
        name: max(position[reader.name] for reader in readers)
        for name, readers in view.consumers.items()
        if readers
    }
    alive, points = set(view.inputs), []
    for index, node in enumerate(view.nodes[:-1], start=1):
        if any(name not in view.constants for name in node.input):
            alive.update(node.output)
        alive = {name for name in alive if last_use.get(name, -1) >= index}
        if len(alive) == 1:
            points.append(index)
    return points
