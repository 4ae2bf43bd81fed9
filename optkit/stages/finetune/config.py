"""Options of `finetune`: a pretrained classifier learns the user's classes."""

from __future__ import annotations

from pydantic import Field

from optkit.core.config import StageConfig
from optkit.data.config import DataConfig
from optkit.train.config import TrainConfig


class Config(StageConfig):
    """Fine-tune an architecture: first a new head on cached features, then the chosen blocks."""

    arch: str = Field(default="lite0", description="b0…b7, lite0…lite4, or any timm name.")
    weights: str = Field(
        default="auto",
        description="auto, hub, package, scratch, or a .safetensors or .pth file. "
        "auto tries cache, package and hub.",
    )
    size: int | None = Field(
        default=None, ge=16, description="Input size in pixels; default: the model's, or the data set's own."
    )
    head_epochs: int = Field(
        default=30,
        ge=0,
        description="Epochs of the new head on cached features, before anything else is trained.",
    )
    data: DataConfig = Field(default_factory=DataConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
