"""Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network (arXiv 1503.02531, section 2)."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def loss(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T² · KL(teacher ‖ student) of the logits (n, classes) softened by T; ignores the labels.

    The factor T² keeps the gradient's size independent of T (page 3 of the paper).
    """
    divergence = F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.log_softmax(teacher / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2
