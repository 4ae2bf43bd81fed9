"""Options of `load`: take a model file from outside into an artifact."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from optkit.core import fingerprint
from optkit.core.config import StageConfig
from optkit.core.errors import InputError
from optkit.core.types import Format

SUFFIXES = {
    ".safetensors": Format.TORCH,
    ".pth": Format.TORCH,
    ".pt": Format.TORCH,
    ".onnx": Format.ONNX,
    ".plan": Format.ENGINE,
    ".engine": Format.ENGINE,
}


class Config(StageConfig):
    """A model file and, where it does not say so itself, how its input is made."""

    path: str = Field(description="Model file: .onnx, .safetensors, .pth (state_dict) or .plan.")
    arch: str | None = Field(
        default=None, description="Architecture of a bare checkpoint (b0, lite0, any timm name)."
    )
    size: int | None = Field(default=None, gt=0, description="Input size in pixels.")
    mean: tuple[float, float, float] | None = Field(
        default=None, description="Mean of the input, RGB in [0, 1]."
    )
    std: tuple[float, float, float] | None = Field(
        default=None, description="Standard deviation, RGB in [0, 1]."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = Field(
        default=None, description="How images are resized."
    )
    crop_pct: float | None = Field(
        default=None, gt=0, le=1, description="Share of the shorter side that is kept."
    )
    crop_mode: Literal["center", "squash"] | None = Field(
        default=None, description="center: crop the middle; squash: resize the whole image."
    )
    class_names: tuple[str, ...] | None = Field(default=None, description="Names of the classes, in order.")

    def canonical(self) -> dict[str, Any]:
        """The file by its content; what may be its external data (`model.onnx.data`) by size and time."""
        path = Path(self.path)
        beside = [
            [other.name, other.stat().st_size, other.stat().st_mtime_ns]
            for other in sorted(path.parent.glob(f"{glob.escape(path.stem)}*"))
            if path.suffix.lower() == ".onnx" and other.is_file() and other != path
        ]
        return {**super().canonical(), "path": [fingerprint.of_path(path), beside]}

    def check(self) -> None:
        """The file exists and its ending says what it is."""
        path = Path(self.path)
        if not path.is_file():
            raise InputError(f"There is no model file {self.path!r}.", hint="Check the path.")
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{self.path!r} is not a model file that optkit knows.",
                why=f"Its ending is {path.suffix!r}.",
                hint="Give " + ", ".join(SUFFIXES) + ", or an artifact folder.",
            )

    def produces(self) -> Format:
        """By the file's ending."""
        return SUFFIXES[Path(self.path).suffix.lower()]
