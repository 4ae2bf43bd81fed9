"""What runtimes share on a CUDA device: memory for a batch, a stream per caller, timing by the GPU's clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

IN_FLIGHT = 2  # runs that may be enqueued and not finished, as in trtexec
WARM_UP_RUNS = 10
RECORDING_WARM_UP = 3  # the first runs of a shape choose kernels and allocate, which no graph can record


@dataclass
class Bound:
    """A model with memory for one batch size. `launch` enqueues one run on the current stream."""

    host_input: torch.Tensor
    device_input: torch.Tensor
    device_output: torch.Tensor
    host_output: torch.Tensor
    launch: Callable[[], None]

    def copy_in(self) -> None:
        self.device_input.copy_(self.host_input, non_blocking=True)

    def copy_out(self) -> None:
        self.host_output.copy_(self.device_output, non_blocking=True)


def allocate(shape: tuple[int, ...], dtypes: tuple[torch.dtype, torch.dtype], classes: int) -> Bound:
    """Pinned host memory and GPU memory for an input of `shape` and its logits; nothing to launch yet."""
    import torch

    result = (shape[0], classes)
    return Bound(
        host_input=torch.zeros(shape, dtype=dtypes[0]).pin_memory(),
        device_input=torch.empty(shape, dtype=dtypes[0], device="cuda"),
        device_output=torch.empty(result, dtype=dtypes[1], device="cuda"),
        host_output=torch.empty(result, dtype=dtypes[1]).pin_memory(),
        launch=lambda: None,
    )


# (shape of the input, stream that the runs will be on, and is current, whether to record a CUDA graph)
Bind = Callable[[tuple[int, ...], Any, bool], Bound]


class Caller:
    """Runs batches on a stream of its own, from host memory to host memory.

    `cuda` is `torch.cuda`, `bind` makes the memory for a shape; only that for the last shape is kept. Batches
    are cut at `largest` images, and filled up to `smallest`.
    """

    def __init__(
        self, cuda: Any, bind: Bind, cuda_graph: bool, smallest: int = 1, largest: int | None = None
    ) -> None:
        self._cuda, self._make, self._cuda_graph = cuda, bind, cuda_graph
        self._smallest, self._largest = smallest, largest
        self._stream = cuda.Stream()
        self._bound: dict[tuple[tuple[int, ...], bool], Bound] = {}
        self._closed = False

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of any number of images."""
        import numpy as np

        step = self._largest or len(pixels)
        return np.concatenate(
            [self._run(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        )

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        bound = self._filled(pixels, max(len(pixels), self._smallest), self._cuda_graph)
        with self._cuda.stream(self._stream):
            bound.copy_in()
            bound.launch()
            bound.copy_out()
        self._stream.synchronize()
        logits: NDArray[np.float32] = bound.host_output[: len(pixels)].float().numpy().copy()
        return logits

    def profile(
        self,
        pixels: NDArray[np.float32],
        repeats: int,
        cuda_graph: bool,
        transfers: bool = True,
        spin_wait: bool = False,
        clock_ns: Callable[[], int] | None = None,
    ) -> dict[str, list[float]]:
        """See `base.Profiled`. Host memory is pinned; WARM_UP_RUNS runs come before."""
        bound = self._filled(pixels, len(pixels), cuda_graph)
        parts: dict[str, Callable[[], None]] = {"compute": bound.launch}
        if transfers:
            parts = {"h2d": bound.copy_in, "compute": bound.launch, "d2h": bound.copy_out}
        with self._cuda.stream(self._stream):
            bound.copy_in()
            return time_parts(self._cuda, parts, repeats, spin_wait, clock_ns)

    def close(self) -> None:
        """Free the memory."""
        self._bound.clear()
        self._closed = True

    def _filled(self, pixels: NDArray[np.float32], batch: int, cuda_graph: bool) -> Bound:
        """Memory for `batch` images, the first of them `pixels`."""
        if self._closed:
            raise ValueError("the session is closed")
        import numpy as np
        import torch

        shape = (batch, *pixels.shape[1:])
        if (shape, cuda_graph) not in self._bound:
            self._bound.clear()  # first, so that its memory is free
            with self._cuda.stream(self._stream):  # what making it enqueues is over before it is used
                self._bound[shape, cuda_graph] = self._make(shape, self._stream, cuda_graph)
        bound = self._bound[shape, cuda_graph]
        bound.host_input[: len(pixels)].copy_(torch.from_numpy(np.ascontiguousarray(pixels)))
        return bound


def time_parts(
    cuda: Any,
    parts: dict[str, Callable[[], None]],
    repeats: int,
    spin_wait: bool,
    clock_ns: Callable[[], int] | None,
) -> dict[str, list[float]]:
    """Milliseconds of each part of `repeats` runs on the current stream, by events between the parts.

    `enqueue`, where `clock_ns` is given, is the host's time for launching `compute`.
    """
    clock = clock_ns or (lambda: 0)
    runs = [
        [cuda.Event(enable_timing=True, blocking=not spin_wait) for _ in range(len(parts) + 1)]
        for _ in range(WARM_UP_RUNS + repeats)
    ]
    enqueued: list[float] = []
    for index, (start, *marks) in enumerate(runs):
        start.record()
        for (name, launch), mark in zip(parts.items(), marks, strict=True):
            started = clock()
            launch()
            if name == "compute":
                enqueued.append((clock() - started) / 1e6)
            mark.record()
        if index + 1 >= IN_FLIGHT:
            runs[index + 1 - IN_FLIGHT][-1].synchronize()
    runs[-1][-1].synchronize()
    counted = runs[WARM_UP_RUNS:]
    times = {
        name: [events[index].elapsed_time(events[index + 1]) for events in counted]
        for index, name in enumerate(parts)
    }
    return times | ({"enqueue": enqueued[WARM_UP_RUNS:]} if clock_ns else {})


def recorded(stream: Any, launch: Callable[[], None]) -> Callable[[], None]:
    """`launch` as a CUDA graph: its kernels are enqueued by one call."""
    import torch

    with torch.cuda.stream(stream):
        for _ in range(RECORDING_WARM_UP):
            launch()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    # Callers in other threads may use the GPU meanwhile.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        launch()
    return partial(_replay, graph, launch)


def _replay(graph: torch.cuda.CUDAGraph, launch: Callable[[], None]) -> None:
    """`launch` is held because the graph uses the memory of whatever it would run."""
    graph.replay()
