"""Answers zeros at once: for tests of the code that measures, wherever no real runtime is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.types import Artifact, Format
from optkit.runtimes.base import SessionOptions

FORMATS = (Format.TORCH, Format.ONNX, Format.ENGINE)
COMPUTES = False  # the answers are not the model's: bench measures no accuracy and compares no times


def unavailable() -> str | None:
    """Needs nothing."""
    return None


class NullSession:
    """Zeros of the right shape."""

    def __init__(self, num_classes: int) -> None:
        self.facts: dict[str, Any] = {"device": "none", "precision": "none", "num_classes": num_classes}

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.zeros((len(pixels), self.facts["num_classes"]), np.float32)

    def close(self) -> None:
        """Nothing is held."""


def open_session(artifact: Artifact, options: SessionOptions) -> NullSession:
    """A session that does not read the model file."""
    return NullSession(artifact.spec.num_classes)
