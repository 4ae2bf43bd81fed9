"""Options of `cost`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optkit.core.config import Input
from optkit.core.types import Format
from optkit.models.config import NetworkConfig


class Config(NetworkConfig):
    """MACs, parameters, activations and bytes of a model or of an architecture, in total and layer by layer."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("model", (Format.TORCH, Format.ONNX), "the model to count, or an architecture", optional=True),
    )
    measures: ClassVar[bool] = True

    layers: bool = Field(
        default=False, description="Show every layer, with what the formulas say of it, not the dearest ten."
    )
