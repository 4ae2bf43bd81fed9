"""PyTorch; on the CUDA device where there is one."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from optkit.core import discover, machine
from optkit.core.errors import MissingError
from optkit.core.types import Artifact, Format
from optkit.runtimes._cuda import Bound, Caller, allocate, recorded
from optkit.runtimes._kernels import LayerTimes, Repeats
from optkit.runtimes._modules import module_times
from optkit.runtimes.base import SessionOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from optkit.runtimes.base import Run

FORMATS = (Format.TORCH,)
IMPORTS = ("torch", "timm")
VARIANTS = {
    "channels_last": "eager, with the channels of a pixel side by side in memory",
    "eager": "eager, with one plane of pixels per channel (NCHW)",
    "compiled": "torch.compile for the batch size at hand, channels_last",
}
NO_COMPILER = (
    "torch.compile makes C++ code for a CPU, and there is no compiler {!r} here: "
    "install one (Debian: apt install g++)"
)
MAX_COMPILED = 64  # batch sizes that one session may be compiled for


def unavailable(variant: str = "") -> str | None:
    """PyTorch is one of optkit's own dependencies; compiling needs a compiler."""
    if not discover.installed("torch"):
        return "PyTorch is not installed: pip install torch"
    compiler = os.environ.get("CXX", "g++")  # as PyTorch looks for it
    if variant == "compiled" and not machine.gpus() and shutil.which(compiler) is None:
        return NO_COMPILER.format(compiler)
    return None


class TorchSession:
    """A module in eval mode on the CPU."""

    def __init__(self, module: torch.nn.Module, threads: int, variant: str, device: str = "cpu") -> None:
        import torch

        self._torch, self._threads = torch, threads
        self._format = torch.contiguous_format if variant == "eager" else torch.channels_last
        self.module = module.eval().to(device).to(memory_format=self._format)
        self._forward = _compiled(self.module) if variant == "compiled" else self.module
        self.facts: dict[str, Any] = {
            "device": device,
            "precision": "fp32",
            "threads": threads,
            "streams": 1,
            "memory_format": str(self._format).removeprefix("torch."),
            "version": torch.__version__,
        }
        if variant == "compiled":
            self.facts["compiled_batches"] = []

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        torch = self._torch
        if torch.get_num_threads() != self._threads:  # each thread has a setting, which others may change
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(memory_format=self._format)
            logits: NDArray[np.float32] = self._forward(batch).float().numpy()
        self._note(len(pixels))
        return logits

    def stream(self) -> Run:
        """The session itself: a module takes calls of several threads at once."""
        return self.run

    def close(self) -> None:
        del self.module, self._forward

    def _note(self, batch: int) -> None:
        compiled = self.facts.get("compiled_batches")
        if compiled is not None and batch not in compiled:
            compiled.append(batch)


class CudaTorchSession(TorchSession):
    """On a GPU: every caller has a CUDA stream, pinned memory and, if asked for, a CUDA graph of its own."""

    def __init__(self, module: torch.nn.Module, threads: int, variant: str, cuda_graph: bool) -> None:
        super().__init__(module, threads, variant, "cuda")
        torch = self._torch
        self._callers: list[Caller] = []
        self.facts |= {
            "device": torch.cuda.get_device_name(),
            "cuda_graph": cuda_graph,
            "tf32": torch.backends.cudnn.allow_tf32,  # PyTorch's default for convolutions
        }
        self._run = self.stream()
        self.profile = self._callers[0].profile

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._run(pixels)

    def stream(self) -> Run:
        caller = Caller(self._torch.cuda, self._bind, self.facts["cuda_graph"])
        self._callers.append(caller)
        return caller.run

    def close(self) -> None:
        """Free the GPU memory."""
        for caller in self._callers:
            caller.close()
        super().close()

    def _bind(self, shape: tuple[int, ...], stream: torch.cuda.Stream, cuda_graph: bool) -> Bound:
        torch = self._torch
        bound = allocate(shape, (torch.float32, torch.float32), classes=0)
        bound.device_input = bound.device_input.to(memory_format=self._format)

        def enqueue() -> None:
            with torch.inference_mode():
                bound.device_output = self._forward(bound.device_input).float()

        enqueue()  # its answer has the number of classes
        bound.host_output = torch.empty(bound.device_output.shape).pin_memory()
        bound.launch = recorded(stream, enqueue) if cuda_graph else enqueue
        self._note(shape[0])
        return bound


def _compiled(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """`module` by torch.compile: for each batch size of its own, and whole, so that no part stays eager unseen."""
    import torch
    from torch._dynamo.exc import TorchDynamoException

    # It would warn that a CUDA toolkit is installed and no GPU there.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    torch._dynamo.config.recompile_limit = MAX_COMPILED
    forward = torch.compile(module, dynamic=False, fullgraph=True)

    def call(batch: torch.Tensor) -> torch.Tensor:
        try:
            logits: torch.Tensor = forward(batch)
        except TorchDynamoException as error:
            why = str(error).splitlines()[0][:300]
            raise MissingError("torch.compile fails here.", why=why, hint="Eager: pytorch") from None
        return logits

    return call


def open_session(artifact: Artifact, options: SessionOptions) -> TorchSession:
    """Rebuild the module of a checkpoint and put it on the device."""
    import torch

    threads = options.threads or machine.facts()["cores"]
    variant = options.variant or next(iter(VARIANTS))
    module = options.load_module(artifact)
    if not torch.cuda.is_available():
        return TorchSession(module, threads, variant)
    return CudaTorchSession(module, threads, variant, options.cuda_graph)


def layer_times(artifact: Artifact, options: SessionOptions, repeats: Repeats) -> LayerTimes:
    """Times of the modules of a network, on a GPU by its own clock; MissingError for a compiled one."""
    import torch

    if options.variant == "compiled":
        raise MissingError(
            "A compiled network has no layers to time.",
            why="torch.compile makes kernels of several layers each, and does not tell of which.",
            hint="Profile it eager: pytorch:channels_last",
        )
    session = open_session(artifact, options)

    def event() -> torch.cuda.Event:
        now = torch.cuda.Event(enable_timing=True)
        now.record()
        return now

    def milliseconds(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return start.elapsed_time(end)  # the answer is on the host: all events are over

    on_gpu = session.facts["device"] != "cpu"
    return module_times(
        session.module,
        lambda: session.run(repeats.pixels),
        repeats,
        event if on_gpu else repeats.clock,
        milliseconds if on_gpu else lambda start, end: (end - start) * 1000,
    )
