"""What a training step minimises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from optkit.train.label_losses import LabelLoss

# `objective(module, views, targets)` → scalar loss and logits (n, classes). `views[i]` is the batch as the i-th
# model wants it, `targets` class indices (n,) or, after mixing images, shares of classes (n, classes).
Objective = Callable[[nn.Module, list[torch.Tensor], torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
DistillationLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


def classification(loss: LabelLoss) -> Objective:
    """The loss against the labels."""

    def objective(
        module: nn.Module, views: list[torch.Tensor], targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = module(views[0]).float()
        return loss(logits, targets), logits

    return objective


def distillation(
    teacher: nn.Module,
    loss: DistillationLoss,
    label_loss: LabelLoss,
    weight: float,
    temperature: float,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Objective:
    """`weight` · distillation loss + (1 − `weight`) · loss against the labels.

    The teacher sees `views[-1]`: the same crop as the student, at its own size and normalisation.
    """
    teacher = teacher.eval().to(memory_format=torch.channels_last)

    def objective(
        module: nn.Module, views: list[torch.Tensor], targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad(), autocast():
            target = teacher(views[-1]).float()
        logits = module(views[0]).float()
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        total = weight * loss(logits, target, labels, temperature)
        if weight < 1:
            total = total + (1 - weight) * label_loss(logits, targets)
        return total, logits

    return objective
