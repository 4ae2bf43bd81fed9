"""Running an engine on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError, MissingError, UsageError
from optkit.runtimes.tensorrt.engine_file import FLAVOURS, describe, summary
from optkit.runtimes.tensorrt.library import load_library, recorder

if TYPE_CHECKING:
    import torch

WARM_UP_RUNS = 10


def _deserialise(path: Path) -> tuple[ModuleType, Any, tuple[Any, ...]]:
    """The TensorRT module, the engine, and what must outlive it; MissingError when it does not load."""
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
    return trt, engine, (logger, runtime)


@dataclass(frozen=True)
class _EngineIO:
    """The one input `(batch, 3, size, size)` and the one output `(batch, num_classes)` of an engine."""

    input_name: str
    output_name: str
    min_batch: int
    max_batch: int
    size: int
    num_classes: int


def _engine_io(trt: ModuleType, engine: Any) -> _EngineIO:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) == len(outputs) == 1:
        shape, result = (tuple(engine.get_tensor_shape(name)) for name in (*inputs, *outputs))
        if len(shape) == 4 and shape[1] == 3 and len(result) == 2:
            smallest, largest = shape, shape
            if -1 in shape:
                smallest, _, largest = map(tuple, engine.get_tensor_profile_shape(inputs[0], 0))
            return _EngineIO(inputs[0], outputs[0], smallest[0], largest[0], largest[-1], result[1])
    raise InputError(
        "The engine is not an image classifier.",
        why=f"Its inputs are {inputs} and its outputs {outputs}; an image classifier "
        "has (batch, 3, size, size) → (batch, classes).",
        hint="Build it from a classifier with logits as its only output.",
    )


def classifier_shape(path: Path) -> tuple[int, int]:
    """Input size and number of classes of an engine file; needs the GPU that it is for."""
    trt, engine, _owners = _deserialise(path)
    io = _engine_io(trt, engine)
    return io.size, io.num_classes


@dataclass
class _Bound:
    """A context whose input and output have memory for one batch size. `launch` enqueues one run."""

    host_input: torch.Tensor
    device_input: torch.Tensor
    device_output: torch.Tensor
    host_output: torch.Tensor
    launch: Callable[[], None]


class EngineSession:
    """A deserialised engine on the current CUDA device."""

    def __init__(self, path: Path, precision: str) -> None:
        import torch

        self._torch = torch
        self._trt, self._engine, self._owners = _deserialise(path)
        self._io = _engine_io(self._trt, self._engine)
        self._stream = torch.cuda.Stream()
        self._bound: dict[tuple[int, bool], _Bound] = {}
        fixed = self._io.min_batch == self._io.max_batch
        self.facts: dict[str, Any] = {
            "device": "cuda",
            "provider": self._trt.__name__,
            "gpu": torch.cuda.get_device_name(),
            "precision": precision,
            "max_batch": self._io.max_batch,
            "fixed_batch": self._io.max_batch if fixed else None,
            "version": self._trt.__version__,
        }

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of any number of images: in slices of the largest batch, the last one padded if need be."""
        logits = []
        for start in range(0, len(pixels), self._io.max_batch):
            part = pixels[start : start + self._io.max_batch]
            bound = self._bind(max(len(part), self._io.min_batch), cuda_graph=False)
            bound.host_input[: len(part)].copy_(self._torch.from_numpy(np.ascontiguousarray(part)))
            with self._torch.cuda.stream(self._stream):
                bound.device_input.copy_(bound.host_input, non_blocking=True)
                bound.launch()
                bound.host_output.copy_(bound.device_output, non_blocking=True)
            self._stream.synchronize()
            logits.append(bound.host_output[: len(part)].float().numpy().copy())
        return np.concatenate(logits)

    def profile(self, pixels: NDArray[np.float32], repeats: int, cuda_graph: bool) -> dict[str, list[float]]:
        """Milliseconds of the copy in (`h2d`), the engine (`compute`) and the copy out (`d2h`), run by run.

        Timed by CUDA events, that is by the GPU's clock; host memory is pinned, WARM_UP_RUNS come before.
        """
        torch = self._torch
        bound = self._bind(len(pixels), cuda_graph)
        bound.host_input.copy_(torch.from_numpy(np.ascontiguousarray(pixels)))
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(4)] for _ in range(repeats)]
        spare = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        with torch.cuda.stream(self._stream):
            for start, copied_in, computed, copied_out in [spare] * WARM_UP_RUNS + events:
                start.record()
                bound.device_input.copy_(bound.host_input, non_blocking=True)
                copied_in.record()
                bound.launch()
                computed.record()
                bound.host_output.copy_(bound.device_output, non_blocking=True)
                copied_out.record()
        self._stream.synchronize()
        names = ("h2d", "compute", "d2h")
        return {name: [run[i].elapsed_time(run[i + 1]) for run in events] for i, name in enumerate(names)}

    def close(self) -> None:
        """Free the GPU memory."""
        self._bound.clear()
        self._engine = None
        self._owners = ()

    def _bind(self, batch: int, cuda_graph: bool) -> _Bound:
        if self._engine is None:
            raise ValueError("the session is closed")
        if not self._io.min_batch <= batch <= self._io.max_batch:
            raise UsageError(
                f"The engine takes batches of {self._io.min_batch} to {self._io.max_batch}, not {batch}.",
                hint="Build it with a larger --max-batch.",
            )
        if (batch, cuda_graph) not in self._bound:
            self._bound = {(batch, cuda_graph): self._allocate(batch, cuda_graph)}
        return self._bound[batch, cuda_graph]

    def _allocate(self, batch: int, cuda_graph: bool) -> _Bound:
        torch, io = self._torch, self._io
        context = self._context(cuda_graph)
        shape = (batch, 3, io.size, io.size)
        if not context.set_input_shape(io.input_name, shape):
            raise UsageError(f"The engine does not take an input of {shape}.")
        tensors = []
        for name, wanted in ((io.input_name, shape), (io.output_name, (batch, io.num_classes))):
            dtype = self._dtype(name)
            tensors.append(torch.empty(wanted, dtype=dtype, device="cuda"))
            context.set_tensor_address(name, tensors[-1].data_ptr())
        device_input, device_output = tensors
        return _Bound(
            host_input=torch.zeros(shape, dtype=device_input.dtype).pin_memory(),
            device_input=device_input,
            device_output=device_output,
            host_output=torch.empty(device_output.shape, dtype=device_output.dtype).pin_memory(),
            launch=self._launcher(context, cuda_graph),
        )

    def _dtype(self, name: str) -> torch.dtype:
        kind = self._engine.get_tensor_dtype(name)
        types = {
            self._trt.float32: self._torch.float32,
            self._trt.float16: self._torch.float16,
            self._trt.bfloat16: self._torch.bfloat16,
        }
        if kind not in types:
            raise InputError(
                f"The engine's tensor {name!r} is {kind}.",
                why="Expected floating point.",
                hint="Build it from a classifier with float inputs and outputs.",
            )
        return types[kind]

    def _context(self, cuda_graph: bool) -> Any:
        if self._trt.__name__ == "tensorrt_rtx":
            trt, config = self._trt, self._engine.create_runtime_config()
            # Lazily, the first runs would be timed on fallback kernels.
            config.dynamic_shapes_kernel_specialization_strategy = (
                trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            # It captures the graph by itself, once the kernels for a shape are there.
            strategies = trt.CudaGraphStrategy
            config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if cuda_graph else strategies.DISABLED
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise MissingError(
                "The engine cannot be executed.",
                why="TensorRT made no context: too little GPU memory?",
                hint="Free the GPU, or build with a smaller --max-batch.",
            )
        return context

    def _launcher(self, context: Any, cuda_graph: bool) -> Callable[[], None]:
        def enqueue() -> None:
            if not context.execute_async_v3(self._torch.cuda.current_stream().cuda_stream):
                raise MissingError("TensorRT did not run the engine.", hint="See `optkit doctor`.")

        if not cuda_graph or self._trt.__name__ == "tensorrt_rtx":
            return enqueue
        with self._torch.cuda.stream(self._stream):
            enqueue()  # the first run of a shape does work that cannot be captured
        self._stream.synchronize()
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            enqueue()
        replay: Callable[[], None] = graph.replay
        return replay
