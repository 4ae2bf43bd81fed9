"""Options of `predict`."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

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

    images: str = Field(
        description="An image, a folder (searched through), or a pattern such as 'photos/*.jpg'."
    )
    top_k: int = Field(default=5, ge=1, description="How many classes to name for each image.")
    runtime: str | None = Field(
        default=None, description="Runtime to use; default: that of the model's format."
    )

    def files(self) -> list[Path]:
        """The files that `images` names, sorted; a folder's files may not all be images."""
        path = Path(self.images)
        if path.is_dir():
            return sorted(file for file in path.rglob("*") if file.is_file())
        if path.is_file():
            return [path]
        found = (Path(name) for name in glob.glob(self.images, recursive=True))
        return sorted(file for file in found if file.is_file())

    def canonical(self) -> dict[str, Any]:
        """Images by name and content."""
        prints = [[str(file), fingerprint.of_file(file)] for file in self.files()]
        return {**super().canonical(), "images": prints}

    def check(self) -> None:
        """There are files, and the runtime is known."""
        super().check()
        if not self.files():
            raise InputError(f"No file matches {self.images!r}.", hint=NO_IMAGES_HINT)
        known = discover.names("optkit.runtimes")
        if self.runtime is not None and self.runtime not in known:
            raise UsageError(f"Unknown runtime {self.runtime!r}.", hint=closest(self.runtime, known))
