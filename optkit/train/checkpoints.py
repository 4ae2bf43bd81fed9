"""What a training leaves behind for the case that it is killed."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from optkit.core.progress import Reporter


@dataclass
class Progress:
    """Where a training stands: phase, epoch and step that come next, and what it has seen so far.

    `sums` are loss · images, right answers and images of the epoch in progress; `stale` counts epochs of the phase
    without a better validation than `phase_top1`; `parts` is how many parts a batch is computed in.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    parts: int = 1
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[dict[str, Any]] = field(default_factory=list)
    best_top1: float = -1.0
    best_row: int = -1
    phase_top1: float = -1.0
    stale: int = 0
    lr_finder: dict[str, Any] | None = None

    def begin(self, phase: int) -> None:
        """Stand at the beginning of `phase`."""
        self.phase, self.epoch, self.step, self.stale, self.phase_top1 = phase, 0, 0, 0, -1.0


class Checkpoints:
    """Files of tensors and plain values in `folder`, replaced in one step; in memory when it is None."""

    def __init__(self, folder: Path | None, reporter: Reporter) -> None:
        self._folder, self._reporter = folder, reporter
        self._memory: dict[str, Any] = {}

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Replace `name`. OSError when the disk is full."""
        if self._folder is None:
            self._memory[name] = _copied(state)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{name}.{os.getpid()}"
        try:
            with temporary.open("wb") as stream:
                torch.save(state, stream)
            os.replace(temporary, self._folder / f"{name}.pt")
        except RuntimeError as error:  # torch's word for a write that failed
            cause = error.__context__
            if not isinstance(cause, OSError):
                raise
            raise OSError(cause.errno, cause.strerror, str(self._folder)) from None
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, name: str) -> dict[str, Any] | None:
        """What was saved last under `name`; None when there is nothing, or nothing whole."""
        if self._folder is None:
            return self._memory.get(name)
        path = self._folder / f"{name}.pt"
        if not path.is_file():
            return None
        try:
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
            self._reporter.warn(f"The checkpoint {path.name} is damaged and left aside.")
            return None
        return found


def _copied(value: Any) -> Any:
    """A copy that further training does not change."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
