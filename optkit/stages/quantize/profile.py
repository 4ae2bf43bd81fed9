"""Where an ONNX model spends its time on this CPU, node by node."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.measure.kernel_origins import node_times
from optkit.measure.latency import Stopwatch
from optkit.runtimes._kernels import Repeats
from optkit.runtimes.onnxruntime import model_layer_times


def profile(
    model: onnx.ModelProto, pixels: NDArray[np.float32], runs: int = 30, threads: int = 1
) -> dict[str, float]:
    """Median ms that one batch spends in every node of `model` in ONNX Runtime, see `node_times`."""
    repeats = Repeats(pixels, runs, Stopwatch().seconds)
    return node_times(model, model_layer_times(model.SerializeToString(), threads, repeats).kernels)
