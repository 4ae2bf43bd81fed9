"""What a training step minimises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Objective = Callable[[nn.Module, Any], tuple[torch.Tensor, torch.Tensor]]


def _inputs(module: nn.Module, batch: Any, view: int) -> torch.Tensor:
    device = next(module.parameters()).device
    return batch.views[view].to(device, memory_format=torch.channels_last, non_blocking=True)


def classification(label_smoothing: float) -> Objective:
    """Cross-entropy with the labels; batches have `.views[0]` and `.labels`."""

    def objective(module: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        logits = module(_inputs(module, batch, 0)).float()
        labels = batch.labels.to(logits.device)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        return loss, (logits.argmax(1) == labels).float().mean()

    return objective


def distillation(
    teacher: nn.Module,
    loss: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor],
    weight: float,
    temperature: float,
    label_smoothing: float,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Objective:
    """`weight` · distillation loss + (1 − `weight`) · cross-entropy with smoothed labels.

    The teacher sees `.views[-1]`: the same crop as the student, at its own size and normalisation.
    """
    teacher = teacher.eval().to(memory_format=torch.channels_last)

    def objective(module: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad(), autocast():
            target = teacher(_inputs(teacher, batch, -1)).float()
        logits = module(_inputs(module, batch, 0)).float()
        labels = batch.labels.to(logits.device)
        total = weight * loss(logits, target, labels, temperature)
        if weight < 1:
            cross_entropy = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
            total = total + (1 - weight) * cross_entropy
        return total, (logits.argmax(1) == labels).float().mean()

    return objective
