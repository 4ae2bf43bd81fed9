"""Images → batches: resizing, cropping, normalising."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from optkit.core.progress import Reporter
from optkit.core.types import Preprocess
from optkit.data.base import CorruptImage, ImageSet
from optkit.data.images import decode_pixels

# A JPEG that is decoded at a fraction of its size is softer than a full one that is resized; with this much
# to spare above the size that is wanted, by 0.2 of 255 levels.
SPARE = 1.5


@dataclass(frozen=True)
class Batch:
    """`pixels` float32 (n, 3, size, size), normalised; `labels` (n,); `indices` (n,) into the image set."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


def read_pixels(images: ImageSet, index: int, min_side: int = 0) -> NDArray[np.uint8]:
    """Image `index` as uint8 (h, w, 3), no smaller than `min_side` where the file is not (0: in full size).

    What the set's own `open_image` raises when the image is corrupt.
    """
    if images.read_image is None:
        return np.array(images.open_image(index))
    try:
        return decode_pixels(images.read_image(index), min_side)
    except CorruptImage:  # whether it is skipped or refused is the set's to say
        return np.array(images.open_image(index))


def read_input(images: ImageSet, index: int, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Image `index` as the model sees it, uint8 (size, size, 3): what every accuracy is measured with."""
    min_side = math.ceil(SPARE * preprocess.size / _share(preprocess))
    return resize_and_crop(read_pixels(images, index, min_side), preprocess)


def resize_and_crop(image: Image.Image | NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """RGB image → uint8 (size, size, 3), as timm's evaluation transform does it."""
    pixels = np.array(image) if isinstance(image, Image.Image) else image
    size, sides = preprocess.size, pixels.shape[:2]
    if preprocess.crop_mode == "squash":
        return resize(pixels, (size, size), preprocess.interpolation)
    short = math.floor(size / preprocess.crop_pct)
    scale = short / min(sides)
    height, width = (short if side == min(sides) else int(side * scale) for side in sides)
    top, left = round((height - size) / 2), round((width - size) / 2)
    resized = resize(pixels, (height, width), preprocess.interpolation)
    return resized[top : top + size, left : left + size]


def resize(pixels: NDArray[np.uint8], sides: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) → uint8 (*sides, 3), equal to Pillow's to within rounding.

    The result lies in memory plane by plane, which `normalise` is quickest with.
    """
    if pixels.shape[:2] == sides:
        return pixels
    if interpolation == "nearest":  # where two pixels are equally near, torch takes the other
        return np.array(Image.fromarray(pixels).resize(sides[::-1], Image.Resampling.NEAREST))
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, sides, mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def mirror(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (h, w, 3), left and right exchanged."""
    return torch.from_numpy(pixels).flip(1).numpy()


def normalise(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """uint8 (n, size, size, 3) → float32 (n, 3, size, size)."""
    return normalise_planes(torch.from_numpy(pixels).permute(0, 3, 1, 2), preprocess).numpy()


def normalise_planes(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """uint8 → float32, both (n, 3, size, size)."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return pixels.contiguous().float().mul_(1 / (255 * std)).sub_(mean / std)


def batches(images: ImageSet, preprocess: Preprocess, batch_size: int, reporter: Reporter) -> Iterator[Batch]:
    """Every image once, in order. An image that turns out corrupt is left out and warned of."""
    for start in range(0, len(images), batch_size):
        indices, pixels = [], []
        for index in range(start, min(start + batch_size, len(images))):
            try:
                pixels.append(read_input(images, index, preprocess))
            except CorruptImage as error:
                reporter.warn(f"Skipped corrupt image {images.ids[index]}: {error}.")
                continue
            indices.append(index)
        if indices:
            chosen = np.array(indices)
            yield Batch(normalise(np.stack(pixels), preprocess), images.labels[chosen], chosen)


def _share(preprocess: Preprocess) -> float:
    """How much of the shorter side a centre crop keeps."""
    return 1.0 if preprocess.crop_mode == "squash" else preprocess.crop_pct
