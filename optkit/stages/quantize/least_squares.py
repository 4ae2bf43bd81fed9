"""Weights rounded so that the layer's output stays, not so that every weight stays.

On inputs that the quantised layers before made, the weights are first refitted to the FP32 outputs (least squares,
ridge towards the FP32 weights), then rounded column by column with the error of each spread over the columns that are
still free. Sources: second-order compensated rounding, Frantar et al. 2022 (GPTQ, arXiv 2210.17323, section 3 and
algorithm 1) and Hubara et al. 2021 (AdaQuant, arXiv 2006.10518); the target from FP32 inputs as in Li et al. 2025
(GPTAQ, arXiv 2504.02692).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of the mean diagonal
SHRINKS = (1.0, 0.93, 0.86)  # of the largest weight: finer steps against clipping
BLOCK = 64  # columns whose errors reach the rest of the matrix together


@dataclass
class Moments:
    """Second moments of a layer's inputs, group by group, from quantised layers (x) and from FP32 ones (y).

    `xx` is E[x xᵀ] and `yx` E[y xᵀ], (groups, k, k), after means are taken off where a bias takes these up;
    `mean_x`, `mean_y` (groups, k).
    """

    xx: Tensor
    yx: Tensor
    mean_x: Tensor
    mean_y: Tensor


class MomentSums:
    """Accumulates `Moments` over batches of inputs (groups, k, samples) of a layer with or without a bias."""

    def __init__(self, with_bias: bool = True) -> None:
        self.with_bias = with_bias
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add samples of quantised and FP32 inputs, both (groups, k, samples)."""
        parts = [part.double() for part in (x @ x.mT, y @ x.mT, x.sum(-1), y.sum(-1))]
        self.sums = [a + b for a, b in zip(self.sums, parts, strict=True)] if self.sums else parts
        self.count += x.shape[-1]

    def plus(self, other: MomentSums) -> MomentSums:
        """The sums of both."""
        both = MomentSums(self.with_bias)
        both.count = self.count + other.count
        both.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        return both

    def moments(self) -> Moments:
        """The moments, centred where a bias takes up the means."""
        xx, yx, x, y = (total / self.count for total in self.sums)
        if not self.with_bias:
            return Moments(xx, yx, x, y)
        return Moments(xx - x[:, :, None] * x[:, None, :], yx - y[:, :, None] * x[:, None, :], x, y)


class Damped:
    """What refitting and rounding need of the moments of inputs, at one strength of damping."""

    def __init__(self, moments: Moments, damping: float) -> None:
        xx = moments.xx
        # Sums of float32 products: of inputs that hardly vary, what is left after their means is rounding.
        least = 1e-4 * xx.shape[-1] * moments.mean_x.square().mean(-1)
        size = torch.maximum(xx.diagonal(dim1=1, dim2=2).mean(-1), least).clamp_min(1e-12)
        ridge = torch.diag_embed((damping * size)[:, None].expand(xx.shape[:2]))
        self._hessian, self._target = xx + ridge, moments.yx + ridge
        # Columns that matter most first: what is rounded last has to take up the errors of all others.
        self._order = xx.diagonal(dim1=1, dim2=2).argsort(descending=True)
        sorted_rows = self._hessian.gather(1, self._order[:, :, None].expand_as(xx))
        hessian = sorted_rows.gather(2, self._order[:, None].expand_as(xx))
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        self._upper = torch.linalg.cholesky(inverse, upper=True).float()

    def refit(self, weight: Tensor) -> Tensor:
        """Weights (groups, rows, k) whose outputs on x are nearest to those of `weight` on y."""
        return torch.linalg.solve(self._hessian, weight @ self._target, left=False)

    def round(self, weight: Tensor, scales: Tensor) -> Tensor:
        """`weight` (groups, rows, k) on the grid of `scales` (groups, rows), with errors compensated."""
        order, upper = self._order[:, None].expand_as(weight), self._upper
        weight, scales = weight.gather(2, order).float(), scales.float()
        rounded = torch.empty_like(weight)
        for start in range(0, weight.shape[-1], BLOCK):
            end = min(start + BLOCK, weight.shape[-1])
            errors = torch.zeros_like(weight[:, :, start:end])
            for column in range(start, end):
                current = weight[:, :, column]
                rounded[:, :, column] = (current / scales).round_().clamp_(-127, 127) * scales
                error = (current - rounded[:, :, column]) / upper[:, column, column, None]
                errors[:, :, column - start] = error
                weight[:, :, column:end] -= error[:, :, None] * upper[:, None, column, column:end]
            weight[:, :, end:] -= errors @ upper[:, start:end, end:]
        return torch.empty_like(rounded).scatter_(2, order, rounded).double()


def fit_layer(
    weight: Tensor, fit: MomentSums, held: MomentSums, smallest: Tensor
) -> tuple[Tensor, Tensor, Moments]:
    """Rounded weights (groups, rows, k), their scales (groups, rows) and the moments of all samples.

    Few images span few directions of many inputs, and what is fitted along the others is noise. So the damping is
    the one that does best on `held`, samples of other images than `fit`. No scale is below `smallest`.
    """
    moments, unseen = fit.moments(), held.moments()

    def unseen_error(damping: float) -> float:
        damped = Damped(moments, damping)
        wanted = damped.refit(weight)
        return float(_error(damped.round(wanted, _scales(wanted, 1.0, smallest)), weight, unseen).sum())

    damping = min(DAMPINGS, key=unseen_error)
    moments = moments if held is fit else fit.plus(held).moments()
    damped = Damped(moments, damping)
    wanted = damped.refit(weight)
    scales = torch.stack([_scales(wanted, shrink, smallest) for shrink in SHRINKS])
    rounded = torch.stack([damped.round(wanted, one) for one in scales])
    best = torch.stack([_error(one, weight, moments) for one in rounded]).argmin(0)
    chosen = rounded.gather(0, best[None, :, :, None].expand(1, *weight.shape))[0]
    return chosen, scales.gather(0, best[None])[0], moments


def _scales(weight: Tensor, shrink: float, smallest: Tensor) -> Tensor:
    return torch.maximum(weight.abs().amax(-1) * shrink / 127, smallest)


def _error(trial: Tensor, weight: Tensor, moments: Moments) -> Tensor:
    """Mean squared error of the outputs (groups, rows), less a constant."""
    return ((trial @ moments.xx - 2 * weight @ moments.yx) * trial).sum(-1)
