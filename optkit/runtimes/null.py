"""Answers zeros at once: for tests of the code that measures, wherever no real runtime is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optkit.core.types import Artifact, Format
from optkit.runtimes.base import SessionOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optkit.runtimes.base import Run

FORMATS = (Format.TORCH, Format.ONNX, Format.ENGINE)
VARIANTS: dict[str, str] = {}
IMPORTS = ("numpy",)
COMPUTES = False  # the answers are not the model's: bench measures no accuracy and compares no times


def unavailable(variant: str = "") -> str | None:
    """Needs nothing."""
    return None


class NullSession:
    """Zeros of the right shape."""

    def __init__(self, num_classes: int) -> None:
        import numpy

        self._numpy = numpy
        self.facts: dict[str, Any] = {
            "device": "none", "precision": "none", "num_classes": num_classes, "streams": 1
        }  # fmt: skip

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._numpy.zeros((len(pixels), self.facts["num_classes"]), "float32")

    def stream(self) -> Run:
        return self.run

    def close(self) -> None:
        """Nothing is held."""


def open_session(artifact: Artifact, options: SessionOptions) -> NullSession:
    """A session that does not read the model file."""
    return NullSession(artifact.spec.num_classes)
