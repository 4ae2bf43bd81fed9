"""The protocol of a runtime.

A runtime module has

* `FORMATS`: the artifact formats it executes,
* `unavailable() -> str | None`: why it cannot run on this machine (with the remedy), None when it can;
  imports nothing heavy,
* `open_session(artifact, options) -> Session`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from optkit.core.types import Artifact, Format

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SessionOptions:
    """How to open a session. `load_module` rebuilds the torch module of a TORCH artifact (eval mode)."""

    load_module: Callable[[Artifact], torch.nn.Module]
    threads: int = 0  # 0: every core this process may use


class Session(Protocol):
    """An opened model. `facts` states what really runs: provider, threads, executed precision."""

    facts: dict[str, Any]

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, classes) of a float32 batch (n, 3, size, size); any n where the model allows it."""
        ...

    def close(self) -> None: ...


class Runtime(Protocol):
    """What a runtime module offers."""

    FORMATS: tuple[Format, ...]

    def unavailable(self) -> str | None: ...

    def open_session(self, artifact: Artifact, options: SessionOptions) -> Session: ...
