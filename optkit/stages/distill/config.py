"""Options of `distill`: a small student learns from a large teacher."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optkit.core import discover
from optkit.core.config import Input
from optkit.core.errors import UsageError, closest
from optkit.core.types import Format
from optkit.data.config import AugmentConfig, TrainingDataConfig
from optkit.models.config import NewModelConfig
from optkit.train.config import TrainConfig

LOSSES = "optkit.train.losses"


class Config(NewModelConfig):
    """Train a student on what a teacher says of every image."""

    inputs: ClassVar[tuple[Input, ...]] = (
        Input(
            "teacher",
            (Format.TORCH,),
            "the model to learn from (on the command line, an architecture will do)",
        ),
        Input(
            "student",
            (Format.TORCH,),
            "the model that learns (on the command line, an architecture will do)",
            optional=True,
        ),
    )

    arch: str = Field(
        default="lite0", description="Architecture of the student, when it starts from pretrained weights."
    )
    weights: str = Field(
        default="auto", description="The student's weights: auto, hub, package, scratch, or a file."
    )
    size: int | None = Field(
        default=None, ge=16, description="The student's input size; default: its own, or the data set's."
    )
    head_epochs: int = Field(
        default=30, ge=0, description="Epochs of the student's new head on cached features."
    )
    loss: str = Field(
        default="kl", description="Distillation loss: " + ", ".join(discover.names(LOSSES)) + "."
    )
    temperature: float = Field(default=2.0, gt=0, description="Softening of both networks' logits.")
    distill_weight: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Share of the distillation loss; the rest is cross-entropy with the labels.",
    )
    data: TrainingDataConfig = Field(default_factory=TrainingDataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)

    def check(self) -> None:
        """The loss is one that exists."""
        super().check()
        if self.loss not in discover.names(LOSSES):
            raise UsageError(
                f"Unknown distillation loss {self.loss!r}.", hint=closest(self.loss, discover.names(LOSSES))
            )
