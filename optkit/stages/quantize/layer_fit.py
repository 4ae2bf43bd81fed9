"""Weights rounded so that the layer's output stays, not so that every weight stays.

Layer after layer, on inputs that the quantised layers before it made, the weights are first refitted to the FP32
outputs (least squares, ridge towards the FP32 weights), then rounded column by column with the error of each
spread over the columns that are still free. Sources: second-order compensated rounding, Frantar et al. 2022
(GPTQ, arXiv 2210.17323, section 3 and algorithm 1) and Hubara et al. 2021 (AdaQuant, arXiv 2006.10518); the target
from FP32 inputs as in Li et al. 2025 (GPTAQ, arXiv 2504.02692). Biases take up what remains of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of the mean diagonal
SHRINKS = (1.0, 0.93, 0.86)  # of the largest weight: finer steps against clipping


@dataclass
class Moments:
    """Second moments of a layer's inputs, group by group, from quantised layers (x) and from FP32 ones (y).

    `xx` is E[x xᵀ] and `yx` E[y xᵀ] after means are taken off, (groups, k, k); `mean_x`, `mean_y` (groups, k).
    """

    xx: Tensor
    yx: Tensor
    mean_x: Tensor
    mean_y: Tensor


class MomentSums:
    """Accumulates `Moments` over batches of inputs (groups, k, samples)."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add samples of quantised and FP32 inputs, both (groups, k, samples)."""
        parts = [x @ x.mT, y @ x.mT, x.sum(-1), y.sum(-1)]
        parts = [part.double() for part in parts]
        self.sums = [a + b for a, b in zip(self.sums, parts, strict=True)] if self.sums else parts
        self.count += x.shape[-1]

    def plus(self, other: MomentSums) -> MomentSums:
        """The sums of both."""
        both = MomentSums()
        both.count = self.count + other.count
        both.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        return both

    def moments(self) -> Moments:
        """The centred moments."""
        xx, yx, x, y = (total / self.count for total in self.sums)
        return Moments(xx - x[:, :, None] * x[:, None, :], yx - y[:, :, None] * x[:, None, :], x, y)


def refit(weight: Tensor, moments: Moments, damping: float) -> Tensor:
    """Weights (groups, rows, k) whose outputs on x are nearest to those of `weight` on y."""
    ridge = _ridge(moments.xx, damping)
    target = weight @ (moments.yx + ridge)
    return torch.linalg.solve(moments.xx + ridge, target, left=False)


def round_compensated(weight: Tensor, scales: Tensor, xx: Tensor, damping: float) -> Tensor:
    """`weight` (groups, rows, k) on the grid of `scales` (groups, rows), errors of E[x xᵀ] `xx` compensated."""
    weight = weight.clone()
    order = xx.diagonal(dim1=1, dim2=2).argsort(descending=True)
    k = weight.shape[-1]
    weight = weight.gather(2, order[:, None].expand_as(weight))
    hessian = (xx + _ridge(xx, damping)).gather(1, order[:, :, None].expand_as(xx))
    hessian = hessian.gather(2, order[:, None].expand_as(xx))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    weight, scales = weight.float(), scales.float()
    rounded = torch.empty_like(weight)
    block = 64
    for start in range(0, k, block):
        end = min(start + block, k)
        errors = torch.zeros_like(weight[:, :, start:end])
        for column in range(start, end):
            current = weight[:, :, column]
            rounded[:, :, column] = (current / scales).round_().clamp_(-127, 127) * scales
            error = (current - rounded[:, :, column]) / upper[:, column, column, None]
            errors[:, :, column - start] = error
            weight[:, :, column:end] -= error[:, :, None] * upper[:, None, column, column:end]
        weight[:, :, end:] -= errors @ upper[:, start:end, end:]
    return torch.empty_like(rounded).scatter_(2, order[:, None].expand_as(rounded), rounded)


def fit_layer(
    weight: Tensor, fit: MomentSums, held: MomentSums, smallest: Tensor
) -> tuple[Tensor, Tensor, Moments]:
    """Rounded weights (groups, rows, k), their scales (groups, rows) and the moments of all samples.

    Few images span few directions of many inputs, and what is fitted along the others is noise. So the damping is
    the one that does best on `held`, samples of other images than `fit`. No scale is below `smallest`.
    """
    moments, unseen = fit.moments(), held.moments()
    tried = []
    for damping in DAMPINGS:
        trial, _ = _round(weight, moments, damping, 1.0, smallest)
        tried.append(float(_error(trial, weight, unseen).sum()))
    damping = DAMPINGS[tried.index(min(tried))]
    moments = moments if held is fit else fit.plus(held).moments()
    best, scales = _round(weight, moments, damping, SHRINKS[0], smallest)
    least = _error(best, weight, moments)
    for shrink in SHRINKS[1:]:
        trial, trial_scales = _round(weight, moments, damping, shrink, smallest)
        error = _error(trial, weight, moments)
        better = error < least
        best = torch.where(better[..., None], trial, best)
        scales, least = torch.where(better, trial_scales, scales), torch.minimum(error, least)
    return best, scales, moments


def _round(
    weight: Tensor, moments: Moments, damping: float, shrink: float, smallest: Tensor
) -> tuple[Tensor, Tensor]:
    wanted = refit(weight, moments, damping)
    scales = torch.maximum(wanted.abs().amax(-1) * shrink / 127, smallest)
    return round_compensated(wanted, scales, moments.xx, damping).double(), scales


def _error(trial: Tensor, weight: Tensor, moments: Moments) -> Tensor:
    """Mean squared error of the outputs (groups, rows), less a constant."""
    return ((trial @ moments.xx - 2 * weight @ moments.yx) * trial).sum(-1)


def _ridge(xx: Tensor, damping: float) -> Tensor:
    size = xx.diagonal(dim1=1, dim2=2).mean(-1).clamp_min(1e-12)
    return torch.diag_embed((damping * size)[:, None].expand(xx.shape[:2]))
