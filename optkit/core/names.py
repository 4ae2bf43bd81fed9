"""Names of models as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Paths without what is not needed to tell them apart: `runs/a/onnx`, `runs/b/onnx` → `a/onnx`, `b/onnx`."""
    for depth in range(1, max(len(Path(name).parts) for name in names) + 1):
        short = {name: "/".join(Path(name).parts[-depth:]) for name in names}
        if len(set(short.values())) == len(short):
            return short
    return {name: name for name in names}
