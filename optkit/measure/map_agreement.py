"""How far two models look at the same places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef

from optkit.measure.statistics import t95

TOP_AREA = 0.2  # share of the image


@dataclass(frozen=True)
class MapAgreement:
    """Of two maps of one image: correlations of their values and of their ranks (Adebayo et al., arXiv
    1810.03292, section 3.2), and intersection over union of their highest fifths.

    None where a map is flat: it prefers no place.
    """

    pearson: float | None
    spearman: float | None
    iou: float | None


def compare_maps(first: NDArray[np.float32], second: NDArray[np.float32]) -> MapAgreement:
    """Compare two maps (size, size); the larger one is averaged down to the smaller."""
    size = min(len(first), len(second))
    one, other = (_resized(values, size).double().flatten() for values in (first, second))
    if one.max() == one.min() or other.max() == other.min():
        return MapAgreement(None, None, None)
    tops = [_top(values) for values in (one, other)]
    # Standardised: torchmetrics takes a small variance, as that of a faint map, for none.
    one, other = ((values - values.mean()) / values.std() for values in (one, other))
    return MapAgreement(
        pearson=float(pearson_corrcoef(one, other)),
        spearman=float(spearman_corrcoef(one, other)),
        iou=float((tops[0] & tops[1]).sum() / (tops[0] | tops[1]).sum()),
    )


def mean_interval(values: Sequence[float], lowest: float) -> list[float] | None:
    """95 % interval of a mean over images (Student's t) of what lies in `lowest` … 1; None for fewer than three."""
    if len(values) < 3:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    spread = t95(len(values) - 1) * error
    return [max(lowest, mean - spread), min(1.0, mean + spread)]


def _resized(values: NDArray[np.float32], size: int) -> torch.Tensor:
    image = torch.from_numpy(values)[None, None]
    return torch.nn.functional.interpolate(image, (size, size), mode="area")[0, 0]


def _top(values: torch.Tensor) -> torch.Tensor:
    """The highest fifth, less what is zero."""
    found = torch.zeros(len(values), dtype=torch.bool)
    found[values.argsort(descending=True, stable=True)[: round(TOP_AREA * len(values))]] = True
    return found & (values > 0)
