"""ONNX Runtime's CUDA provider with the tensors kept on the GPU, on streams of PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from optkit.runtimes._cuda import RECORDING_WARM_UP, Bound, Caller, allocate

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    import torch
    from numpy.typing import NDArray

    from optkit.core.errors import InputError
    from optkit.runtimes.base import Run


class CudaOrtSession:
    """`start(settings)` opens the file with these options of the provider, `refused` explains its exceptions."""

    def __init__(
        self,
        start: Callable[[dict[str, str]], onnxruntime.InferenceSession],
        classes: int,
        facts: dict[str, Any],
        refusals: tuple[type[Exception], ...],
        refused: Callable[[Exception], InputError],
    ) -> None:
        import torch

        self._torch = torch
        self._start, self._classes, self._refusals, self._refused = start, classes, refusals, refused
        self._sessions: dict[int, onnxruntime.InferenceSession] = {}
        self._callers: list[Caller] = []
        self.facts = facts
        self._run = self.stream()
        self.profile = self._callers[0].profile

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._run(pixels)

    def stream(self) -> Run:
        """A caller with a CUDA stream of its own; the provider has one stream per session, so that too."""
        caller = Caller(self._torch.cuda, self._bind, self.facts["cuda_graph"])
        self._callers.append(caller)

        def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
            try:
                return caller.run(pixels)
            except self._refusals as error:
                raise self._refused(error) from None

        return run

    def close(self) -> None:
        """Free the GPU memory."""
        for caller in self._callers:
            caller.close()
        self._sessions.clear()

    def _session(self, stream: torch.cuda.Stream, cuda_graph: bool) -> onnxruntime.InferenceSession:
        settings = {"user_compute_stream": str(stream.cuda_stream), "enable_cuda_graph": str(int(cuda_graph))}
        if cuda_graph:  # it records one shape
            return self._start(settings)
        if stream.cuda_stream not in self._sessions:
            self._sessions[stream.cuda_stream] = self._start(settings)
        return self._sessions[stream.cuda_stream]

    def _bind(self, shape: tuple[int, ...], stream: torch.cuda.Stream, cuda_graph: bool) -> Bound:
        import numpy as np
        import onnxruntime

        session, torch = self._session(stream, cuda_graph), self._torch
        types = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}
        image, logits = session.get_inputs()[0], session.get_outputs()[0]
        bound = allocate(shape, (types[image.type], types[logits.type]), self._classes)
        elements = {torch.float32: np.float32, torch.float16: np.float16}
        binding, options = session.io_binding(), onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # the caller waits
        for bind, name, tensor in (
            (binding.bind_input, image.name, bound.device_input),
            (binding.bind_output, logits.name, bound.device_output),
        ):
            bind(name, "cuda", 0, elements[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
        bound.launch = lambda: session.run_with_iobinding(binding, options)
        for _ in range(RECORDING_WARM_UP if cuda_graph else 0):
            bound.launch()  # it records the graph by itself, in one of the first runs
        stream.synchronize()
        return bound
