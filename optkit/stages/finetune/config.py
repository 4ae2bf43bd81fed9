"""Options of `finetune`: a pretrained classifier learns the user's classes."""

from __future__ import annotations

from pydantic import Field

from optkit.data.config import AugmentConfig, TrainingDataConfig
from optkit.models.config import NewModelConfig
from optkit.train.config import TrainConfig


class Config(NewModelConfig):
    """Fine-tune an architecture: first a new head on cached features, then the chosen blocks."""

    head_epochs: int = Field(
        default=30,
        ge=0,
        description="Epochs of the new head on cached features, before anything else is trained.",
    )
    data: TrainingDataConfig = Field(default_factory=TrainingDataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
