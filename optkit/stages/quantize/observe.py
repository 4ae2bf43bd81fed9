"""Run images through the FP32 graph and keep, of every wanted activation, its extremes and a histogram.

Extremes are reduced inside the graph and exact. Histograms are sampled: of every image at most SAMPLES values
of a tensor, evenly spaced at a distance that shares no factor with its size, so that every row, column and
channel is met. No activation is kept, and results do not depend on the batch size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from optkit.core.errors import InputError
from optkit.core.progress import Task
from optkit.graph.onnx_file import ClassifierIO
from optkit.stages.quantize.calibrators.base import Observed
from optkit.stages.quantize.execute import open_session, pad

SAMPLES = 4096


def observe(
    model: onnx.ModelProto,
    io: ClassifierIO,
    tensors: list[str],
    batches: Iterable[NDArray[np.float32]],
    histograms: bool,
    task: Task,
) -> dict[str, Observed]:
    """Observations of `tensors` over all batches (n, 3, size, size), n may vary.

    InputError when there is no image, and when an activation is not finite.
    """
    # ONNX Runtime works towards the outputs from the last to the first. Deepest tensor first, it reduces
    # every activation as soon as it is there; the other way round all would wait for the network's end.
    observed = {name: Observed() for name in reversed(tensors)}
    session, seen = None, 0
    with ThreadPoolExecutor(1) as worker:
        counting = None
        for pixels in batches:
            padded = pad(pixels, io.batch)
            if session is None:
                sizes = _sizes(model, io, list(observed), padded[: io.batch or 1]) if histograms else {}
                session = open_session(_with_observers(model, list(observed), sizes))
            results = session.run(None, {io.input_name: padded})
            if counting is not None:
                counting.result()
            counting = worker.submit(_count, observed, results, (len(pixels), len(padded)), histograms)
            seen += len(pixels)
            task.advance(len(pixels))
        if counting is not None:
            counting.result()
    if not seen:
        raise InputError(
            "There is no image to calibrate with.", hint="Check --data: its training images are used."
        )
    return observed


def _count(
    observed: dict[str, Observed],
    results: list[NDArray[np.float32]],
    counts: tuple[int, int],
    histograms: bool,
) -> None:
    """`counts`: images, and images with those that fill up a fixed batch, which are not to count."""
    count, padded = counts
    each = 4 if histograms else 3
    # An image may have several rows, as where it is cut into windows.
    results = [value[: len(value) * count // padded] for value in results]
    # Minimum and maximum pass over NaN, the sum does not.
    sums = zip(observed, results[::each], strict=True)
    if broken := [name for name, total in sums if not np.isfinite(total).all()]:
        raise InputError(
            f"The activation {broken[-1]!r} is not finite on a calibration image.",  # deepest first
            why="The FP32 network overflows or holds NaN.",
            hint="Mend the network first: `optkit evaluate` shows whether it works at all.",
        )
    for index, entry in enumerate(observed.values()):
        _, low, high, *sample = results[index * each : (index + 1) * each]
        entry.low, entry.high = min(entry.low, float(low.min())), max(entry.high, float(high.max()))
        if sample:
            entry.histogram.add(sample[0].ravel())


def replace_outputs(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], outputs: dict[str, int]
) -> onnx.ModelProto:
    """A copy with `nodes` appended, whose outputs are `outputs` (name → element type)."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.node.extend(nodes)
    del changed.graph.output[:]
    for name, kind in outputs.items():
        changed.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return changed


def _sizes(
    model: onnx.ModelProto, io: ClassifierIO, tensors: list[str], pixels: NDArray[np.float32]
) -> dict[str, int]:
    """Elements of every tensor for one image; measured, as a graph with dynamic shapes does not tell."""
    nodes = [helper.make_node("Size", [name], [f"{name}.size"]) for name in tensors]
    probe = open_session(
        replace_outputs(model, nodes, {node.output[0]: onnx.TensorProto.INT64 for node in nodes})
    )
    results = probe.run(None, {io.input_name: pixels})
    return {name: int(size) // len(pixels) for name, size in zip(tensors, results, strict=True)}


def _with_observers(model: onnx.ModelProto, tensors: list[str], sizes: dict[str, int]) -> onnx.ModelProto:
    """Outputs per tensor: (batch,) sum, minimum and maximum and, with `sizes`, a (batch, samples) sample."""
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    nodes, outputs, constants = [], {}, {"observe.one": [1]}
    for name in tensors:
        flat = f"{name}.flat"
        nodes.append(helper.make_node("Flatten", [name], [flat], axis=1))
        for op in ("ReduceSum", "ReduceMin", "ReduceMax"):
            as_input = opset >= 18 or op == "ReduceSum"
            inputs, attributes = ([flat, "observe.one"], {}) if as_input else ([flat], {"axes": [1]})
            nodes.append(helper.make_node(op, inputs, [f"{name}.{op}"], keepdims=0, **attributes))
            outputs[f"{name}.{op}"] = onnx.TensorProto.FLOAT
        if sizes:
            step = _step(sizes[name])
            constants.update(
                {f"observe.step{step}": [step], "observe.start": [0], "observe.end": [2**31 - 1]}
            )
            inputs = [flat, "observe.start", "observe.end", "observe.one", f"observe.step{step}"]
            nodes.append(helper.make_node("Slice", inputs, [f"{name}.sample"]))
            outputs[f"{name}.sample"] = onnx.TensorProto.FLOAT
    observing = replace_outputs(model, nodes, outputs)
    observing.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()
    )
    return observing


def _step(size: int) -> int:
    step = -(-size // SAMPLES)
    while math.gcd(step, size) > 1:
        step += 1
    return max(step, 1)
