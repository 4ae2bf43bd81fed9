"""Run a file in ONNX Runtime on the CPU, whatever target it is made for: the arithmetic of Q/DQ is the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from optkit.graph.onnx_file import ClassifierIO

Pixels = NDArray[np.float32]


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session on the CPU, without ONNX Runtime's warnings."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def pad(pixels: NDArray[np.float32], batch: int | None) -> NDArray[np.float32]:
    """A graph of fixed batch size needs full batches: the last image is repeated, and not counted."""
    missing = 0 if batch is None else batch - len(pixels)
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, 0)]) if missing else pixels


def run_model(model: onnx.ModelProto, io: ClassifierIO, batches: Iterable[Pixels]) -> NDArray[np.float32]:
    """Logits (n, classes) of all batches, at least one."""
    return np.concatenate(list(_answers(model, io, batches)))


def _answers(
    model: onnx.ModelProto, io: ClassifierIO, batches: Iterable[Pixels]
) -> Iterator[NDArray[np.float32]]:
    session = open_session(model)
    for pixels in batches:
        padded = pad(pixels, io.batch)
        yield session.run([io.output_name], {io.input_name: padded})[0][: len(pixels)]
