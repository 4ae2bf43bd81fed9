"""TensorRT and TensorRT-RTX: building engines, describing them, running them.

Both flavours have one API; `tensorrt` is used where it is installed, else `tensorrt_rtx`. TensorRT-RTX builds
without a GPU and finishes the engine for the GPU when it is loaded there.
"""

from __future__ import annotations

from optkit.core import machine
from optkit.core.types import Artifact, Format
from optkit.runtimes._kernels import KernelTime, LayerTimes, Repeats, layer_medians
from optkit.runtimes.base import SessionOptions
from optkit.runtimes.tensorrt.build import build_engine
from optkit.runtimes.tensorrt.engine_file import describe, summary
from optkit.runtimes.tensorrt.layers import kind, origins
from optkit.runtimes.tensorrt.load import classifier_shape
from optkit.runtimes.tensorrt.session import EngineSession

__all__ = [
    "FORMATS",
    "IMPORTS",
    "VARIANTS",
    "build_engine",
    "classifier_shape",
    "describe",
    "layer_times",
    "open_session",
    "summary",
    "unavailable",
]

FORMATS = (Format.ENGINE,)
IMPORTS = ("torch",)  # the engine file says which flavour besides
VARIANTS: dict[str, str] = {}  # the engine file says which flavour executes it


def unavailable(variant: str = "") -> str | None:
    """Which part is missing: the package or the GPU."""
    if machine.tensorrt() is None:
        return "neither tensorrt nor tensorrt_rtx is installed: pip install 'optkit[gpu]' or 'optkit[rtx]'"
    if not machine.gpus():
        return "there is no CUDA device here (nvidia-smi names none): run it on a machine with an NVIDIA GPU"
    return None


def open_session(artifact: Artifact, options: SessionOptions) -> EngineSession:
    """Load an engine on the current CUDA device."""
    return EngineSession(artifact.file, artifact.precision.value, options.cuda_graph)


def layer_times(artifact: Artifact, options: SessionOptions, repeats: Repeats) -> LayerTimes:
    """Times of the layers of an engine, by TensorRT's profiler."""
    session = EngineSession(artifact.file, artifact.precision.value)
    recorder, runs = session.record_layers(), []

    def call() -> None:
        recorder.times = {}
        session.run(repeats.pixels)

    totals = repeats.time(call, lambda: runs.append(recorder.times))
    session.close()
    return layer_medians(totals, runs, lambda name, ms: KernelTime(name, kind(name), ms, origins(name)))
