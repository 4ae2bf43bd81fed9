"""Which nodes of an ONNX graph the kernels of a runtime stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import onnx

CONVOLUTIONS = frozenset({"Conv", "FusedConv"})  # ONNX Runtime's
FOREIGN = "ForeignNode"  # TensorRT's: everything between two nodes


class Kernel(Protocol):
    """What a runtime tells of a kernel; `origins` are the nodes that it is made of, None where it does not say."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def ms(self) -> float: ...
    @property
    def origins(self) -> tuple[str, ...] | None: ...
    @property
    def precision(self) -> str: ...


def kernel_nodes(model: onnx.ModelProto, kernels: Sequence[Kernel]) -> dict[str, tuple[str, ...]]:
    """The nodes of `model` that each kernel stands for, by the kernel's name; none for what a runtime adds itself.

    Nodes without a name are called as their first output.
    """
    names = _Names(model.graph)
    found = {kernel.name: names.of_kernel(kernel) for kernel in kernels}
    with_kernel = {name for nodes in found.values() for name in nodes}
    for kernel in kernels:
        if kernel.kind in CONVOLUTIONS and kernel.origins is None:
            found[kernel.name] = names.convolution_behind(found[kernel.name], with_kernel)
    return found


def node_times(model: onnx.ModelProto, kernels: Sequence[Kernel]) -> dict[str, float]:
    """Milliseconds of every node with a kernel; what is fused into a convolution counts for the convolution.

    What the runtime adds itself, as changes of layout, is summed under the kind of the kernel.
    """
    nodes = kernel_nodes(model, kernels)
    total: dict[str, float] = {}
    for kernel in kernels:
        name = next(iter(nodes[kernel.name]), kernel.kind)
        total[name] = total.get(name, 0.0) + kernel.ms
    return total


class _Names:
    """The nodes of a graph by their own names and by those of the tensors that they make."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._makers = {name: node for node in graph.node for name in node.output}
        self._nodes = self._makers | {node.name: node for node in graph.node if node.name}
        self._by_length = sorted(self._nodes, key=len, reverse=True)
        self._order = [_name(node) for node in graph.node]

    def of_kernel(self, kernel: Kernel) -> tuple[str, ...]:
        names = (kernel.name,) if kernel.origins is None else kernel.origins
        if kernel.kind == FOREIGN and all(name in self._order for name in names):
            first, last = sorted(map(self._order.index, names))
            return tuple(self._order[first : last + 1])
        return tuple(dict.fromkeys(self._resolved(names)))

    def _resolved(self, names: Iterable[str]) -> Iterable[str]:
        """Runtimes append to the names of nodes and tensors: `conv_token_7`, `relu_output_nchwc`,
        `mul/QuickGeluFusion/`, `gemm/WithoutBiases`."""
        for name in names:
            known = name
            if name not in self._nodes:
                known = next((known for known in self._by_length if _begins(name, known)), "")
            if known:
                yield _name(self._nodes[known])

    def convolution_behind(self, nodes: tuple[str, ...], with_kernel: set[str]) -> tuple[str, ...]:
        """ONNX Runtime calls a fused convolution by its last node: the nearest one that has no kernel of its own."""
        if not nodes or self._nodes[nodes[0]].op_type == "Conv":
            return nodes
        waiting, seen = [self._nodes[nodes[0]]], {nodes[0]}
        for at in waiting:  # breadth first
            if at.op_type == "Conv":
                if _name(at) not in with_kernel:
                    return (_name(at), *nodes)
                continue
            before = [self._makers[name] for name in at.input if name in self._makers]
            before = [node for node in before if _name(node) not in seen]
            seen.update(map(_name, before))
            waiting += before
        return nodes


def _name(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]


def _begins(name: str, known: str) -> bool:
    """Whether `name` is a known one with something appended, and not another one: `conv_12` is no `conv_1`."""
    return name.startswith(known) and not name[len(known)].isalnum()
