"""How one training image is varied, and which images an epoch shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from optkit.core.types import Preprocess
from optkit.data.base import ImageSet
from optkit.data.config import AugmentConfig
from optkit.data.loading import read_pixels, resize

CHANCES = 6  # numbers that one variation of an image takes


@dataclass(frozen=True)
class Crop:
    """A part of an image, `left`, `top`, `width` and `height` as shares of its sides.

    So it is drawn before the image is opened, which is then decoded no larger than the crop needs.
    """

    left: float
    top: float
    width: float
    height: float
    mirrored: bool

    def cut(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of `pixels` (h, w, 3), not mirrored yet, without copying."""
        height, width = pixels.shape[:2]
        left, top = round(self.left * width), round(self.top * height)
        right = max(left + 1, round((self.left + self.width) * width))
        bottom = max(top + 1, round((self.top + self.height) * height))
        return pixels[top:bottom, left:right]


@dataclass(frozen=True)
class Augmentation:
    """Random crops, RandAugment and erasing as `config` says; mirrored half of the time where `flip`.

    All chance is in `chances`, CHANCES numbers that are evenly distributed over [0, 1).
    """

    config: AugmentConfig
    flip: bool

    def crop(self, chances: NDArray[np.float64]) -> Crop:
        """A crop of at least `min_crop` of the image, of its aspect ratio times 4:5 to 5:4, as far as that fits."""
        area, aspect, left, top, mirrored = chances[:5].tolist()
        area = 1 - area * (1 - self.config.min_crop)
        aspect = min(max((5 / 4) ** (2 * aspect - 1), area), 1 / area)
        width, height = min(1.0, (area * aspect) ** 0.5), min(1.0, (area / aspect) ** 0.5)  # 1 + 1e-16
        return Crop(left * (1 - width), top * (1 - height), width, height, self.flip and mirrored < 0.5)

    def __call__(
        self, images: ImageSet, index: int, preprocesses: list[Preprocess], chances: NDArray[np.float64]
    ) -> list[NDArray[np.uint8]]:
        """Image `index` as each of `preprocesses` wants it, uint8 (size, size, 3): all show the same crop."""
        crop = self.crop(chances)
        largest = max(preprocesses, key=lambda preprocess: preprocess.size)
        min_side = math.ceil(largest.size / min(crop.width, crop.height))
        pixels = crop.cut(read_pixels(images, index, min_side))
        if self.config.randaugment or self.config.erasing:
            # At one size for all, so that every view shows the same.
            pixels = resize(pixels, (largest.size, largest.size), largest.interpolation)
            pixels = self._distort(pixels, largest, int(chances[5] * 2**53))
        views = [resize(pixels, (view.size, view.size), view.interpolation) for view in preprocesses]
        return [mirror(view) for view in views] if crop.mirrored else views

    def _distort(self, pixels: NDArray[np.uint8], preprocess: Preprocess, seed: int) -> NDArray[np.uint8]:
        """RandAugment (Cubuk et al., 2020) and random erasing (Zhong et al., 2020), which fill with the mean."""
        fill = [round(255 * value) for value in preprocess.mean]
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the generator of all
            torch.default_generator.manual_seed(seed)  # the CPU's alone
            if self.config.randaugment:
                vary = v2.RandAugment(
                    2, self.config.randaugment, interpolation=InterpolationMode.BILINEAR, fill=fill
                )
                pixels = np.array(vary(Image.fromarray(pixels)))  # quicker than on tensors
            erase = v2.RandomErasing(self.config.erasing, value=fill)
            return erase(torch.from_numpy(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy()


def mirror(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (h, w, 3), left and right exchanged."""
    return torch.from_numpy(pixels).flip(1).numpy()


def natural_order(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Every image once."""
    return rng.permutation(len(labels))


def balanced_order(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many images as there are, the same number of every class (give or take one).

    A small class shows each of its images several times, a large one some of its images.
    """
    classes = rng.permutation(np.unique(labels))
    shares = np.full(len(classes), len(labels) // len(classes))
    shares[: len(labels) % len(classes)] += 1
    chosen = []
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = [rng.permutation(members) for _ in range(-(-share // len(members)))]
        chosen.append(np.concatenate(rounds)[:share])
    return rng.permutation(np.concatenate(chosen))
