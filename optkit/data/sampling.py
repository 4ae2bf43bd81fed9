"""Samples that show every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optkit.data.base import ImageSet


def stratified_order(images: ImageSet, seed: int) -> NDArray[np.int64]:
    """All indices in an order of which every first part is a stratified sample.

    One image of every class comes first; then every class is used up at the same rate.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    rank = np.empty(len(images))
    _, counts = np.unique(images.labels, return_counts=True)
    shuffled = order[np.argsort(images.labels[order], kind="stable")]  # class by class
    for members in np.split(shuffled, np.cumsum(counts)[:-1]):
        rank[members] = (np.arange(len(members)) + rng.random()) / len(members)
        rank[members[:1]] -= 1
    return np.argsort(rank, kind="stable")


def stratified_subset(images: ImageSet, count: int, seed: int) -> ImageSet:
    """`count` images: the same share of every class, at least one where there are no more classes than that."""
    return images if count >= len(images) else images.subset(np.sort(stratified_order(images, seed)[:count]))
