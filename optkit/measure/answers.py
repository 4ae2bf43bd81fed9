"""A classifier's answers image by image, and the figures that need all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optkit.measure.statistics import bootstrap, distance_bound, wilson

ECE_BINS = 15  # Guo et al. 2017, arXiv 1706.04599
FIGURES = ("precision", "recall", "f1", "ece", "loss")


@dataclass(frozen=True)
class Answers:
    """One entry an image: true and predicted class, probability of the prediction, cross-entropy."""

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float64]
    losses: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images were classified correctly."""
        return self.labels == self.predictions

    def figures(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """`FIGURES` of the images, where image i counts `weights[i]` times.

        Precision, recall and F1 are means over the classes that the images show.
        """
        images = np.bincount(self.labels, weights)
        guessed = np.bincount(self.predictions, weights, minlength=len(images))[: len(images)]
        hits = np.bincount(self.labels[self.right], weights[self.right], minlength=len(images))
        shown = images > 0
        images, guessed, hits = images[shown], guessed[shown], hits[shown]
        precision = hits / np.maximum(guessed, 1)
        return np.array(
            [
                precision.mean(),
                (hits / images).mean(),
                (2 * hits / (images + guessed)).mean(),
                np.abs(self._calibration_gaps(weights)).sum(),
                np.average(self.losses, weights=weights),
            ]
        )

    def _calibration_gaps(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """(right answers − sum of confidences) per image in every bin of confidence (Guo et al., equation 3)."""
        bins = np.minimum((self.confidences * ECE_BINS).astype(np.int64), ECE_BINS - 1)  # 1.0 is in the last
        gaps = np.bincount(bins, weights * (self.right - self.confidences), minlength=ECE_BINS)
        return np.asarray(gaps / weights.sum(), np.float64)

    def intervals(self, seed: int) -> list[list[float]]:
        """95 % intervals of `FIGURES`, by bootstrap over the images.

        Without a single mistake resampling cannot show one: there, the first three get Wilson's bound for as
        many images as would know the mean over the classes equally well if the classes were equally large.
        A sum of absolute gaps is too high in every sample, most where the truth is 0: the calibration error gets
        the wider interval that holds the truth at least so often.
        """
        low, high = bootstrap(self.figures, len(self.labels), seed).T
        ece = float(np.abs(self._calibration_gaps(np.ones(len(self.labels), np.int64))).sum())
        radius = distance_bound(self._calibration_gaps, len(self.labels), seed)
        low[3], high[3] = ece - radius, ece + radius
        low = np.maximum(low, 0)
        high[:4] = np.minimum(high[:4], 1)
        if self.right.all():
            counts = np.unique(self.labels, return_counts=True)[1]
            equal = max(1, round(len(counts) ** 2 / (1 / counts).sum()))
            low[:3] = wilson(equal, equal)[0]
        return [[float(a), float(b)] for a, b in zip(low, high, strict=True)]


def joined(parts: Sequence[Answers]) -> Answers:
    """The answers of several batches as one; at least one batch."""
    columns = ("labels", "predictions", "confidences", "losses")
    return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))
