"""Drawn stripes of four directions and colours with noise: for trying things out without any data."""

from __future__ import annotations

import numpy as np
from PIL import Image

from optkit.data.base import ImageSet, Listing
from optkit.data.config import DataConfig

CLASSES = ("horizontal", "vertical", "rising", "falling")
COUNT, SIZE = 400, 32


def _draw(index: int) -> Image.Image:
    rng = np.random.default_rng(index)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    direction = (y, x, x + y, x - y)[index % len(CLASSES)]
    wave = np.sin(2 * np.pi * (rng.uniform(2, 4) * direction + rng.random()))
    dark, light = rng.uniform(0, 110, 3), rng.uniform(145, 255, 3)
    pixels = np.where(wave[..., None] > 0, dark, light) + rng.normal(0, 15, (SIZE, SIZE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def load(path: str, config: DataConfig) -> Listing:
    """400 images, the same ones every time."""
    ids = tuple(f"stripes-{index:03d}" for index in range(COUNT))
    images = ImageSet(
        class_names=CLASSES,
        ids=ids,
        labels=np.arange(COUNT, dtype=np.int64) % len(CLASSES),
        open_image=_draw,
        identities=ids,
    )
    return Listing(train=images, native_size=SIZE, flip=False)
