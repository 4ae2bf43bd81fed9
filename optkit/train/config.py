"""How to train: shared by fine-tuning, distillation and the recovery after pruning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from optkit.core.config import Config


class TrainConfig(Config):
    """Options of the training loop."""

    epochs: int = Field(default=4, ge=0, description="Epochs over the training images.")
    batch_size: int = Field(default=32, ge=2, description="Images per step.")
    lr: float = Field(default=1e-3, gt=0, description="Peak learning rate (AdamW, warm-up, then cosine).")
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay; norms and biases are exempt.")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="Share of the steps spent warming up.")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="Label smoothing of the cross-entropy.")
    unfreeze: str | int = Field(
        default="all", description="What is trained: 'all', 'head', or a number of last blocks (with the head)."
    )
    augment: bool = Field(default=True, description="Random crops, and mirroring where labels allow it.")
    min_crop: float = Field(default=0.6, gt=0, le=1, description="Smallest share of the image in a random crop.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Arithmetic of training; auto: bf16 where the machine is faster with it."
    )
    workers: int = Field(default=-1, ge=-1, description="Loader processes; -1: by the number of cores.")

    @property
    def crop(self) -> float | None:
        """Smallest share of a random crop, None without augmentation."""
        return self.min_crop if self.augment else None

    @field_validator("unfreeze")
    @classmethod
    def _check_unfreeze(cls, value: str | int) -> str | int:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if value not in ("all", "head") and not (isinstance(value, int) and value > 0):
            raise ValueError("give 'all', 'head', or a number of blocks")
        return value
