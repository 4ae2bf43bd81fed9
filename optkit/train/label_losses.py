"""Losses of logits against labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from optkit.train.config import TrainConfig

LabelLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def label_loss(options: TrainConfig, class_counts: torch.Tensor) -> LabelLoss:
    """`loss(logits (n, c), targets) -> scalar`; targets are class indices (n,) or shares of classes (n, c).

    `class_counts` (c,) are the training images of every class, for `class_weights: balanced`.
    """
    weights = class_counts.sum() / (len(class_counts) * class_counts.clamp(min=1))
    weights = weights.float() if options.class_weights == "balanced" else torch.ones(len(class_counts))
    losses = {
        "cross_entropy": _cross_entropy,
        "bce": _bce,
        "mse": _brier,
        "focal": lambda logits, shares: _focal(logits, shares, options.focal_gamma),
    }
    chosen = losses[options.label_loss]

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        classes = logits.shape[1]
        shares = F.one_hot(targets, classes).float() if targets.ndim == 1 else targets
        weight = (shares @ weights.to(shares.device)).detach()  # of every image
        smoothed = shares * (1 - options.label_smoothing) + options.label_smoothing / classes
        # The weights average 1 over the training images, not over a batch: its parts add up to the whole.
        return (weight * chosen(logits, smoothed)).mean()

    return loss


def _cross_entropy(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    return -(shares * F.log_softmax(logits, 1)).sum(1)


def _bce(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Every class on its own; Wightman et al., ResNet strikes back (arXiv 2110.00476, section 3)."""
    return F.binary_cross_entropy_with_logits(logits, shares, reduction="none").mean(1)


def _brier(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Squared error of the probabilities (Brier 1950)."""
    return (logits.softmax(1) - shares).square().sum(1)


def _focal(logits: torch.Tensor, shares: torch.Tensor, gamma: float) -> torch.Tensor:
    """Lin et al., Focal loss (arXiv 1708.02002, equation 4), with softmax."""
    log_p = F.log_softmax(logits, 1)
    wrong = (1 - log_p.exp()).clamp(min=1e-6)  # at 0 the slope of a power below 1 is infinite
    return -(shares * wrong**gamma * log_p).sum(1)
