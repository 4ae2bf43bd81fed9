"""Options of `prune`: fewer channels, then training to recover."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from optkit.core import discover
from optkit.core.config import Input, StageConfig
from optkit.core.errors import UsageError, closest
from optkit.core.types import Format
from optkit.data.config import AugmentConfig, TrainingDataConfig
from optkit.train.config import TrainConfig

CRITERIA = "optkit.stages.prune.criteria"


class Config(StageConfig):
    """Remove channels until a share of the multiply-adds is gone, and recover by distilling the dense model."""

    inputs: ClassVar[tuple[Input, ...]] = (Input("model", (Format.TORCH,), "the trained model to prune"),)

    ratio: float = Field(default=0.4, gt=0, lt=1, description="Share of the multiply-adds to remove.")
    criterion: str = Field(
        default="taylor", description="What makes a channel worth keeping: group_l2 or taylor."
    )
    scope: Literal["inner", "all"] = Field(
        default="inner",
        description="inner: only channels inside blocks; all: also those that residual sums share.",
    )
    round_to: int = Field(
        default=16, ge=1, description="Widths become multiples of this; other widths run slower."
    )
    min_width: int = Field(default=16, ge=1, description="No layer is left with fewer channels.")
    max_layer_ratio: float = Field(
        default=0.75, gt=0, lt=1, description="Largest share that one layer may lose."
    )
    gradient_images: int = Field(default=256, ge=1, description="Images for the gradients of 'taylor'.")
    statistics_images: int = Field(
        default=1024, ge=0, description="Images for re-estimating batch normalisation before recovery."
    )
    temperature: float = Field(default=2.0, gt=0, description="Softening of the dense model's logits.")
    distill_weight: float = Field(
        default=0.9, ge=0, le=1, description="Share of the distillation loss from the dense model."
    )
    data: TrainingDataConfig = Field(default_factory=TrainingDataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)

    def check(self) -> None:
        """The criterion is one that exists."""
        super().check()
        known = discover.names(CRITERIA)
        if self.criterion not in known:
            raise UsageError(
                f"Unknown pruning criterion {self.criterion!r}.", hint=closest(self.criterion, known)
            )
