"""Options of `predict`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from optkit.core import fingerprint
from optkit.core.config import Input, StageConfig
from optkit.core.types import Format
from optkit.data.files import find_images
from optkit.runtimes.base import check_runtime


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

    def canonical(self) -> dict[str, Any]:
        """Images by name and content."""
        prints = [[str(file), fingerprint.of_file(file)] for file in find_images(self.images)]
        return {**super().canonical(), "images": prints}

    def check(self) -> None:
        """There are images, and the runtime is known."""
        super().check()
        find_images(self.images)
        if self.runtime is not None:
            check_runtime(self.runtime)
