"""scikit-learn's 1,797 handwritten digits, 8×8 grey: real images that need no download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from optkit.data.base import ImageSet, Listing
from optkit.data.config import DataConfig


def load(path: str, config: DataConfig) -> Listing:
    """The whole set; 48 pixels are the least at which EfficientNets learn it well."""
    from sklearn.datasets import load_digits  # an extra: only this source needs it

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    ids = tuple(f"digit-{index:04d}" for index in range(len(pixels)))
    images = ImageSet(
        class_names=tuple(str(name) for name in digits.target_names),
        ids=ids,
        labels=digits.target.astype(np.int64),
        open_image=lambda index: Image.fromarray(pixels[index]).convert("RGB"),
        identities=ids,
    )
    return Listing(train=images, native_size=48, flip=False)
