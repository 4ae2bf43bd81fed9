"""Run images through the FP32 graph and keep, of every wanted activation, its extremes and a histogram.

Extremes are reduced inside the graph and exact. Histograms are sampled: of every image at most SAMPLES values
of a tensor, evenly spaced at a distance that shares no factor with its size, so that every row, column and
channel is met. Tensors that their operator bounds have none, as none is asked for. No activation is kept, and
results do not depend on the batch size.
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
from optkit.graph.qdq_view import GraphView
from optkit.stages.quantize.calibrators.base import Observed
from optkit.stages.quantize.execute import open_session, pad

SAMPLES = 4096
LARGEST = np.finfo(np.float32).max


def observe(
    model: onnx.ModelProto,
    io: ClassifierIO,
    tensors: list[str],
    batches: Iterable[NDArray[np.float32]],
    histograms: bool,
    task: Task,
) -> dict[str, Observed]:
    """Observations of `tensors` over all batches (n, 3, size, size), n may vary.

    InputError when there is no image, and when an activation, or a logit, is not finite.
    """
    # ONNX Runtime works towards the outputs from the last to the first. Deepest tensor first, it reduces
    # every activation as soon as it is there; the other way round all would wait for the network's end.
    observed = {name: Observed() for name in reversed([*tensors, io.output_name])}
    view = GraphView(model)
    sampled = [name for name in tensors if histograms and not view.is_bounded(name)]
    session, names, seen = None, [], 0
    with ThreadPoolExecutor(1) as worker:
        counting = None
        for pixels in batches:
            padded = pad(pixels, io.batch)
            if session is None:
                sizes = _sizes(model, io, sampled, padded[: io.batch or 1]) if sampled else {}
                session = open_session(_with_observers(model, list(observed), sizes))
                names = [output.name for output in session.get_outputs()]
            found = dict(zip(names, session.run(names, {io.input_name: padded}), strict=True))
            if counting is not None:
                counting.result()
            counting = worker.submit(_count, observed, found, (len(pixels), len(padded)))
            seen += len(pixels)
            task.advance(len(pixels))
        if counting is not None:
            counting.result()
    if not seen:
        raise InputError(
            "There is no image to calibrate with.", hint="Check --data: its training images are used."
        )
    return {name: observed[name] for name in tensors}


def _count(
    observed: dict[str, Observed], found: dict[str, NDArray[np.float32]], counts: tuple[int, int]
) -> None:
    """`counts`: images, and images with those that fill up a fixed batch, which are not to count."""
    count, padded = counts
    # An image may have several rows, as where it is cut into windows.
    found = {name: value[: len(value) * count // padded] for name, value in found.items()}
    # Minimum and maximum pass over NaN, the sum does not. ONNX Runtime's Clip without an upper end makes the
    # largest number of infinity.
    if broken := [name for name in observed if not (np.abs(found[f"{name}.observe.sum"]) < LARGEST).all()]:
        raise InputError(
            f"The activation {broken[-1]!r} is not finite on a calibration image.",  # deepest first
            why="The FP32 network overflows or holds NaN.",
            hint="Mend the network first: `optkit evaluate` shows whether it works at all.",
        )
    for name, entry in observed.items():
        entry.high = max(entry.high, float(found[f"{name}.observe.high"].max()))
        if f"{name}.observe.low" in found:
            entry.low = min(entry.low, float(found[f"{name}.observe.low"].min()))
        if f"{name}.observe.sample" in found:
            entry.histogram.add(found[f"{name}.observe.sample"].ravel())


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
    nodes = [helper.make_node("Size", [name], [f"{name}.observe.size"]) for name in tensors]
    probe = open_session(
        replace_outputs(model, nodes, {node.output[0]: onnx.TensorProto.INT64 for node in nodes})
    )
    results = probe.run(None, {io.input_name: pixels})
    return {name: int(size) // len(pixels) for name, size in zip(tensors, results, strict=True)}


def _with_observers(model: onnx.ModelProto, tensors: list[str], sizes: dict[str, int]) -> onnx.ModelProto:
    """Outputs per tensor: (batch,) sum, low and high, and a (batch, samples) sample where `sizes` has its size.

    Of what a Clip leaves above 0 of a convolution, which is most of some networks, the high and, for a sum, the
    mean of every channel. Pooling is the only reduction that reads it in ONNX Runtime's own layout: for any other
    it is copied to the usual one.
    """
    view = GraphView(model)
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    nodes, outputs, constants = [], [], {"observe.one": [1]}
    for name in tensors:
        if _is_cut_at_zero(view, name):
            for op, found in (("GlobalMaxPool", "high"), ("GlobalAveragePool", "sum")):
                pooled = f"{name}.observe.{op}"
                nodes.append(helper.make_node(op, [name], [pooled]))
                # Beyond that layout: what stays in it would be made after all else, with every activation kept.
                nodes.append(helper.make_node("Flatten", [pooled], [f"{name}.observe.{found}"]))
                outputs.append(f"{name}.observe.{found}")
            continue
        flat = f"{name}.observe.flat"
        nodes.append(helper.make_node("Flatten", [name], [flat], axis=1))
        for op, found in (("ReduceSum", "sum"), ("ReduceMin", "low"), ("ReduceMax", "high")):
            as_input = opset >= 18 or op == "ReduceSum"
            inputs, attributes = ([flat, "observe.one"], {}) if as_input else ([flat], {"axes": [1]})
            nodes.append(helper.make_node(op, inputs, [f"{name}.observe.{found}"], keepdims=0, **attributes))
            outputs.append(f"{name}.observe.{found}")
        if name in sizes:
            step = _step(sizes[name])
            constants.update(
                {f"observe.step{step}": [step], "observe.start": [0], "observe.end": [2**31 - 1]}
            )
            inputs = [flat, "observe.start", "observe.end", "observe.one", f"observe.step{step}"]
            nodes.append(helper.make_node("Slice", inputs, [f"{name}.observe.sample"]))
            outputs.append(f"{name}.observe.sample")
    observing = replace_outputs(model, nodes, dict.fromkeys(outputs, onnx.TensorProto.FLOAT))
    observing.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()
    )
    return observing


def _is_cut_at_zero(view: GraphView, name: str) -> bool:
    """Whether a Clip with two ends made `name` of a convolution's result, and left nothing below 0 in it."""
    clip = view.producer.get(name)
    if clip is None or clip.op_type != "Clip" or not view.is_bounded(name):
        return False
    source, low = view.producer.get(clip.input[0]), view.constant(clip.input[1])
    return low is not None and low.item() >= 0 and source is not None and source.op_type == "Conv"


def _step(size: int) -> int:
    step = -(-size // SAMPLES)
    while math.gcd(step, size) > 1:
        step += 1
    return max(step, 1)
