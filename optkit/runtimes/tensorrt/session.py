"""Running an engine on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.core.errors import InputError, MissingError, UsageError
from optkit.runtimes._cuda import Bound, Caller, allocate, recorded
from optkit.runtimes.tensorrt.layers import layer_recorder
from optkit.runtimes.tensorrt.load import LoadedEngine, load_engine

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from optkit.runtimes.base import Run


class EngineSession:
    """A deserialised engine on the current CUDA device."""

    def __init__(self, path: Path, precision: str, cuda_graph: bool = False) -> None:
        import torch

        self._torch, self._cuda_graph = torch, cuda_graph
        self._loaded: LoadedEngine | None = load_engine(path)
        self._callers: list[Caller] = []
        self._layers: Any = None  # what records the times of the layers
        self._caller = self._new_caller()
        self.profile = self._caller.profile
        trt, io = self._loaded.trt, self._loaded.io
        self.facts: dict[str, Any] = {
            "device": "cuda",
            "provider": trt.__name__,
            "gpu": torch.cuda.get_device_name(),
            "precision": precision,
            "streams": 1,
            "cuda_graph": cuda_graph,
            "max_batch": io.max_batch,
            "fixed_batch": io.max_batch if io.min_batch == io.max_batch else None,
            "version": trt.__version__,
        }

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of any number of images: in slices of the largest batch, the last one padded if need be."""
        return self._caller.run(pixels)

    def stream(self) -> Run:
        """A caller with an execution context and a CUDA stream of its own."""
        return self._new_caller().run

    def record_layers(self) -> Any:
        """From now on runs are slower, and `times` of what is returned are milliseconds of the layers."""
        if self._loaded is None:
            raise ValueError("the session is closed")
        self._layers = layer_recorder(self._loaded.trt)
        self._caller = self._new_caller()
        return self._layers

    def close(self) -> None:
        """Free the GPU memory."""
        for caller in self._callers:
            caller.close()
        self._loaded = None

    def _new_caller(self) -> Caller:
        if self._loaded is None:
            raise ValueError("the session is closed")
        io = self._loaded.io
        caller = Caller(self._torch.cuda, self._bind, self._cuda_graph, io.min_batch, io.max_batch)
        self._callers.append(caller)
        return caller

    def _bind(self, shape: tuple[int, ...], stream: torch.cuda.Stream, cuda_graph: bool) -> Bound:
        if self._loaded is None:
            raise ValueError("the session is closed")
        io = self._loaded.io
        if not io.min_batch <= shape[0] <= io.max_batch:
            raise UsageError(
                f"The engine takes batches of {io.min_batch} to {io.max_batch}, not {shape[0]}.",
                hint="Build it with a larger --max-batch.",
            )
        context = self._context(self._loaded, cuda_graph)
        if self._layers is not None:
            context.profiler = self._layers
        if not context.set_input_shape(io.input_name, shape):
            raise UsageError(f"The engine does not take an input of {shape}.")
        dtypes = (self._dtype(self._loaded, io.input_name), self._dtype(self._loaded, io.output_name))
        bound = allocate(shape, dtypes, io.num_classes)
        context.set_tensor_address(io.input_name, bound.device_input.data_ptr())
        context.set_tensor_address(io.output_name, bound.device_output.data_ptr())

        def enqueue() -> None:
            if not context.execute_async_v3(self._torch.cuda.current_stream().cuda_stream):
                raise MissingError("TensorRT did not run the engine.", hint="See `optkit doctor`.")

        by_itself = self._loaded.trt.__name__ == "tensorrt_rtx"
        bound.launch = recorded(stream, enqueue) if cuda_graph and not by_itself else enqueue
        return bound

    def _dtype(self, loaded: LoadedEngine, name: str) -> torch.dtype:
        kind, trt, torch = loaded.engine.get_tensor_dtype(name), loaded.trt, self._torch
        types = {
            trt.float32: torch.float32,
            trt.float16: torch.float16,
            trt.bfloat16: torch.bfloat16,
        }
        if kind not in types:
            raise InputError(
                f"The engine's tensor {name!r} is {kind}.",
                why="Expected floating point.",
                hint="Build it from a classifier with float inputs and outputs.",
            )
        return types[kind]

    def _context(self, loaded: LoadedEngine, cuda_graph: bool) -> Any:
        trt, engine = loaded.trt, loaded.engine
        if trt.__name__ == "tensorrt_rtx":
            config = engine.create_runtime_config()
            # Lazily, the first runs would be timed on fallback kernels.
            config.dynamic_shapes_kernel_specialization_strategy = (
                trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            # It captures the graph by itself, once the kernels for a shape are there.
            strategies = trt.CudaGraphStrategy
            config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if cuda_graph else strategies.DISABLED
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
        if context is None:
            raise MissingError(
                "The engine cannot be executed.",
                why="TensorRT made no context: too little GPU memory?",
                hint="Free the GPU, or build with a smaller --max-batch.",
            )
        return context
