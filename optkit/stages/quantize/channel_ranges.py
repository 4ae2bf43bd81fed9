"""Lowest and highest value of every channel of activations, over calibration images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from optkit.core.errors import InputError
from optkit.core.progress import Task
from optkit.graph.onnx_file import ClassifierIO
from optkit.stages.quantize.execute import open_session, pad
from optkit.stages.quantize.observe import replace_outputs


@dataclass(frozen=True)
class ChannelRange:
    """`low` ≤ 0 ≤ `high`, each (channels,)."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]


def observe_channels(
    model: onnx.ModelProto,
    io: ClassifierIO,
    channels: dict[str, int],
    batches: Iterable[NDArray[np.float32]],
    task: Task,
) -> dict[str, ChannelRange]:
    """Ranges of the tensors in `channels`, which says how many channels each has, on axis 1.

    The channels of a flattened map (batch, channels · pixels) are told apart too. Extremes are reduced inside the
    graph, so memory does not grow with the number of images. InputError when there is no image.
    """
    session = open_session(_with_extremes(model, channels))
    extremes: list[NDArray[np.float32]] | None = None
    for pixels in batches:
        results = session.run(None, {io.input_name: pad(pixels, io.batch)})
        if extremes is None:
            extremes = [np.zeros_like(value) for value in results]
        extremes = [
            pick(known, value)
            for known, value, pick in zip(
                extremes, results, (np.minimum, np.maximum) * len(channels), strict=True
            )
        ]
        task.advance(len(pixels))
    if extremes is None:
        raise InputError(
            "There is no image to calibrate with.", hint="Check --data: its training images are used."
        )
    return {name: ChannelRange(*extremes[2 * index : 2 * index + 2]) for index, name in enumerate(channels)}


def _with_extremes(model: onnx.ModelProto, channels: dict[str, int]) -> onnx.ModelProto:
    """Outputs per tensor: (channels,) minimum and maximum over images and pixels."""
    as_input = next(entry.version for entry in model.opset_import if entry.domain == "") >= 18
    nodes: list[onnx.NodeProto] = []
    outputs: dict[str, int] = {}
    constants = {"extremes.axes": [0, 2]}
    for name, count in channels.items():
        shape, maps = f"extremes.shape{count}", f"{name}.observe.maps"
        constants[shape] = [0, count, -1]
        nodes.append(helper.make_node("Reshape", [name, shape], [maps]))
        for op in ("ReduceMin", "ReduceMax"):
            inputs, attributes = ([maps, "extremes.axes"], {}) if as_input else ([maps], {"axes": [0, 2]})
            nodes.append(helper.make_node(op, inputs, [f"{name}.observe.{op}"], keepdims=0, **attributes))
            outputs[f"{name}.observe.{op}"] = onnx.TensorProto.FLOAT
    observing = replace_outputs(model, nodes, outputs)
    observing.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()
    )
    return observing
