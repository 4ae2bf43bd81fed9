"""Images → batches: resizing, cropping, normalising."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from optkit.core.progress import Reporter
from optkit.core.types import Preprocess
from optkit.data.base import CorruptImage, ImageSet

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Batch:
    """`pixels` float32 (n, 3, size, size), normalised; `labels` (n,); `indices` (n,) into the image set."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


def resize_and_crop(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """RGB image → uint8 (size, size, 3), as timm's evaluation transform does it."""
    size, resample = preprocess.size, RESAMPLING[preprocess.interpolation]
    if preprocess.crop_mode == "squash":
        return np.asarray(image.resize((size, size), resample))
    short = math.floor(size / preprocess.crop_pct)
    scale = short / min(image.size)
    width, height = (short if side == min(image.size) else int(side * scale) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), resample)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def normalise(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """uint8 (n, size, size, 3) → float32 (n, 3, size, size)."""
    mean = np.array(preprocess.mean, np.float32)
    std = np.array(preprocess.std, np.float32)
    scaled = pixels.astype(np.float32) * (1 / (255 * std)) - mean / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def batches(images: ImageSet, preprocess: Preprocess, batch_size: int, reporter: Reporter) -> Iterator[Batch]:
    """Every image once, in order. An image that turns out corrupt is left out and warned of."""
    for start in range(0, len(images), batch_size):
        indices, pixels = [], []
        for index in range(start, min(start + batch_size, len(images))):
            try:
                pixels.append(resize_and_crop(images.open_image(index), preprocess))
            except CorruptImage as error:
                reporter.warn(f"Skipped corrupt image {images.ids[index]}: {error}.")
                continue
            indices.append(index)
        if indices:
            chosen = np.array(indices)
            yield Batch(normalise(np.stack(pixels), preprocess), images.labels[chosen], chosen)


def calibration_subset(images: ImageSet, count: int, seed: int) -> ImageSet:
    """`count` images drawn stratified by class: the same share of every class, at least one where possible."""
    if count >= len(images):
        return images
    rng = np.random.default_rng(seed)
    # Rank every image inside its shuffled class as a fraction; the lowest fractions are a stratified sample.
    order = rng.permutation(len(images))
    rank = np.empty(len(images))
    for label in np.unique(images.labels):
        members = order[images.labels[order] == label]
        rank[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return images.subset(np.sort(np.argsort(rank, kind="stable")[:count]))
