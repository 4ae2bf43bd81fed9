"""Options of `predict`."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from optkit.core import discover, fingerprint
from optkit.core.config import Input, StageConfig
from optkit.core.errors import InputError, UsageError, closest
from optkit.core.types import Format

NO_IMAGES_HINT = "Give an image, a folder of images, or a quoted pattern such as 'photos/*.jpg'."


class Config(StageConfig):
    """Classes of single images, of a folder or of a pattern."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("model", (Format.TORCH, Format.ONNX, Format.ENGINE), "the model to ask"),
    )
    measures: ClassVar[bool] = True

    images: tuple[str, ...] = Field(
        min_length=1,
        description="Images, folders (searched through), or quoted patterns such as 'photos/*.jpg'.",
    )
    top_k: int = Field(default=5, ge=1, description="How many classes to name for each image.")
    runtime: str | None = Field(
        default=None, description="Runtime to use; default: that of the model's format."
    )

    @field_validator("images", mode="before")
    @classmethod
    def _one_is_enough(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def files(self) -> list[Path]:
        """The files that `images` names, sorted; a folder's files may not all be images."""
        return sorted({file for name in self.images for file in _files(name)})

    def canonical(self) -> dict[str, Any]:
        """Images by name and content."""
        prints = [[str(file), fingerprint.of_file(file)] for file in self.files()]
        return {**super().canonical(), "images": prints}

    def check(self) -> None:
        """There are files, and the runtime is known."""
        super().check()
        if not self.files():
            raise InputError(f"No file matches {', '.join(self.images)!r}.", hint=NO_IMAGES_HINT)
        known = discover.names("optkit.runtimes")
        if self.runtime is not None and self.runtime not in known:
            raise UsageError(f"Unknown runtime {self.runtime!r}.", hint=closest(self.runtime, known))


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    if path.is_file():
        return [path]
    return [file for file in map(Path, glob.glob(name, recursive=True)) if file.is_file()]
