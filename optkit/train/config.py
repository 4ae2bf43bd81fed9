"""How to train: shared by fine-tuning, distillation and the recovery after pruning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from optkit.core.config import Config


class TrainConfig(Config):
    """Options of the training loop."""

    epochs: int | None = Field(
        default=None,
        ge=0,
        description="Epochs over the training images; default: 3 where pretrained weights fit, 8 where the whole "
        "network has to learn (from scratch, or images far smaller than those of the weights).",
    )
    batch_size: int = Field(default=32, ge=2, description="Images per step.")
    lr: float | None = Field(
        default=None,
        gt=0,
        description="Peak learning rate (AdamW, warm-up, then cosine); default: 0.0005 where pretrained weights "
        "fit, 0.002 where the whole network has to learn.",
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay; norms and biases are exempt.")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="Share of the steps spent warming up.")
    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="Label smoothing of the cross-entropy."
    )
    unfreeze: str | int = Field(
        default="auto",
        description="What is trained: 'all', 'head', or a number of last blocks (with the head); auto: the last 2 "
        "when fine-tuning weights that fit, else all.",
    )
    augment: bool = Field(default=True, description="Random crops, and mirroring where labels allow it.")
    min_crop: float = Field(
        default=0.6, gt=0, le=1, description="Smallest share of the image in a random crop."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Arithmetic of training; auto: bf16 where the machine is faster with it."
    )
    workers: int = Field(default=-1, ge=-1, description="Loader processes; -1: by the number of cores.")

    def completed(self, fits: bool, blocks: str | int) -> TrainConfig:
        """These options with the defaults that depend on the start.

        `fits`: pretrained weights are near what is wanted, and large steps would only spoil them; `blocks`: what
        then learns by default. Where they do not fit, everything learns.
        """
        epochs, lr = (3, 5e-4) if fits else (8, 2e-3)
        auto = {"epochs": epochs, "lr": lr, "unfreeze": blocks if fits else "all"}
        given = {name: getattr(self, name) for name in auto if getattr(self, name) not in (None, "auto")}
        return self.model_copy(update=auto | given)

    @property
    def crop(self) -> float | None:
        """Smallest share of a random crop, None without augmentation."""
        return self.min_crop if self.augment else None

    @field_validator("unfreeze")
    @classmethod
    def _check_unfreeze(cls, value: str | int) -> str | int:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if value not in ("auto", "all", "head") and not (isinstance(value, int) and value > 0):
            raise ValueError("give 'auto', 'all', 'head', or a number of blocks")
        return value
