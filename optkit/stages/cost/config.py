"""Options of `cost`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optkit.core.config import Input, StageConfig
from optkit.core.errors import UsageError
from optkit.core.types import Format


class Config(StageConfig):
    """MACs, parameters, activations and bytes of a model or of an architecture, in total and layer by layer."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("model", (Format.TORCH, Format.ONNX), "the model to count, or an architecture", optional=True),
    )
    measures: ClassVar[bool] = True

    arch: str | None = Field(
        default=None, description="Architecture to count instead: b0, lite0, any timm name."
    )
    size: int | None = Field(
        default=None, ge=16, description="Input size in pixels; default: the model's or architecture's own."
    )
    num_classes: int | None = Field(
        default=None, ge=1, description="Classes of the architecture's head; default: 1000."
    )
    layers: bool = Field(
        default=False, description="Show every layer, with what the formulas say of it, not the dearest ten."
    )

    def check(self) -> None:
        """Classes are given for an architecture only."""
        super().check()
        if self.arch is None and self.num_classes is not None:
            raise UsageError("A model has its own number of classes.", hint="Leave --num-classes out.")
