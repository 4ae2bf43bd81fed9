"""PyTorch, eager, in channels_last; on the CUDA device where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core import discover, machine
from optkit.core.types import Artifact, Format
from optkit.runtimes.base import SessionOptions

if TYPE_CHECKING:
    import torch

FORMATS = (Format.TORCH,)


def unavailable() -> str | None:
    """PyTorch is one of optkit's own dependencies."""
    return None if discover.installed("torch") else "PyTorch is not installed: pip install torch"


class TorchSession:
    """A module in eval mode; `run` copies the batch to the device and the logits back."""

    def __init__(self, module: torch.nn.Module, threads: int) -> None:
        import torch

        self._torch = torch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._threads = threads
        self._module = module.eval().to(self._device).to(memory_format=torch.channels_last)
        self.facts: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
            "precision": "fp32",
            "threads": threads,
            "memory_format": "channels_last",
            "version": torch.__version__,
        }
        if self._device.type == "cuda":
            self.facts["tf32"] = torch.backends.cudnn.allow_tf32  # PyTorch's default for convolutions

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        torch = self._torch
        if torch.get_num_threads() != self._threads:  # the process has one setting: others may change it
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self._device, memory_format=torch.channels_last)
            logits: NDArray[np.float32] = self._module(batch).float().cpu().numpy()
        return logits

    def close(self) -> None:
        del self._module


def open_session(artifact: Artifact, options: SessionOptions) -> TorchSession:
    """Rebuild the module of a checkpoint and put it on the device."""
    return TorchSession(options.load_module(artifact), options.threads or machine.facts()["cores"])
