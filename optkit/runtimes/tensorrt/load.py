"""Loading an engine file on the current CUDA device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from optkit.core.errors import InputError, MissingError
from optkit.runtimes.tensorrt.engine_file import FLAVOURS, describe, summary
from optkit.runtimes.tensorrt.library import load_library, recorder


@dataclass(frozen=True)
class EngineIO:
    """The one input `(batch, 3, size, size)` and the one output `(batch, num_classes)` of an engine."""

    input_name: str
    output_name: str
    min_batch: int
    max_batch: int
    size: int
    num_classes: int


@dataclass(frozen=True)
class LoadedEngine:
    """An engine, the flavour's module, and what must outlive the engine."""

    trt: ModuleType
    engine: Any
    io: EngineIO
    owners: tuple[Any, ...]


def load_engine(path: Path) -> LoadedEngine:
    """MissingError when the engine does not load here, InputError when it is no image classifier."""
    facts = describe(path)
    trt = load_library(facts["flavour"])
    import torch

    if not torch.cuda.is_available():
        raise MissingError(
            f"The {summary(facts)} cannot run here.",
            why="There is no NVIDIA GPU, PyTorch was installed without CUDA, or the driver does not suit it.",
            hint="Run it on a machine with an NVIDIA GPU; see `optkit doctor`.",
        )
    torch.cuda.init()  # the engine must find the context in which its buffers will live
    logger = recorder(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise MissingError(
            f"The {summary(facts)} does not load here.",
            why=f"{FLAVOURS[trt.__name__]} {trt.__version__}: " + "; ".join(logger.errors[:2]),
            hint="Engines belong to one TensorRT version and kind of GPU: build it again from its ONNX file.",
        )
    return LoadedEngine(trt, engine, _engine_io(trt, engine), (logger, runtime))


def classifier_shape(path: Path) -> tuple[int, int]:
    """Input size and number of classes of an engine file; needs the GPU that it is for."""
    io = load_engine(path).io
    return io.size, io.num_classes


def _engine_io(trt: ModuleType, engine: Any) -> EngineIO:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) == len(outputs) == 1:
        shape, result = (tuple(engine.get_tensor_shape(name)) for name in (*inputs, *outputs))
        if len(shape) == 4 and shape[1] == 3 and len(result) == 2:
            smallest, largest = shape, shape
            if -1 in shape:
                smallest, _, largest = map(tuple, engine.get_tensor_profile_shape(inputs[0], 0))
            return EngineIO(inputs[0], outputs[0], smallest[0], largest[0], largest[-1], result[1])
    raise InputError(
        "The engine is not an image classifier.",
        why=f"Its inputs are {inputs} and its outputs {outputs}; an image classifier "
        "has (batch, 3, size, size) → (batch, classes).",
        hint="Build it from a classifier with logits as its only output.",
    )
