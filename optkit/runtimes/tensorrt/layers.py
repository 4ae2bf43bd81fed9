"""Which nodes of an ONNX file TensorRT's layers are made of, and how long they take."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

# Layers that TensorRT adds: changes of layout and type.
ADDED = ("Reformatting CopyNode", "__mye", "__myl")
RANGE = re.compile(r"\{ForeignNode\[(.+?)\.\.\.(.+?)\]\}")
FOREIGN = "ForeignNode"  # a compiled piece of the graph: its origins are the first and the last of its nodes


def origins(name: str) -> tuple[str, ...]:
    """The nodes in a layer's name: `/a/Conv + PWN(PWN(/b/Sigmoid), /c/Mul)` is made of three."""
    if found := RANGE.search(name):
        return found[1], found[2]
    if name.startswith(ADDED):
        return ()
    return tuple(filter(None, re.split(r"\s\+\s|\s\|\|\s|,\s|PWN\(|[()]", name)))


def kind(name: str) -> str:
    """What TensorRT made of the nodes, as far as the name says it."""
    if RANGE.search(name):
        return FOREIGN
    if name.startswith(ADDED):
        return "Reformat" if name.startswith("Reformatting") else "added by TensorRT"
    return "PointWise" if name.startswith("PWN(") else "Layer"


def layer_recorder(trt: ModuleType) -> Any:
    """A profiler for an execution context; `times` are the milliseconds of the layers since it was cleared."""

    class Recorder(trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times[layer_name] = self.times.get(layer_name, 0.0) + ms

    return Recorder()
