"""What every data source yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from optkit.core import fingerprint


class CorruptImage(Exception):
    """An image that cannot be decoded; `str(error)` is the reason."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images that are opened one at a time.

    `ids[i]` names image i (a path relative to its root), `labels[i]` is its class index, `open_image(i)`
    decodes it as RGB and raises CorruptImage when that fails.
    """

    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    open_image: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: NDArray[np.int64]) -> ImageSet:
        """The images at `indices`, in that order."""
        chosen = [int(index) for index in indices]
        return ImageSet(
            class_names=self.class_names,
            ids=tuple(self.ids[index] for index in chosen),
            labels=self.labels[indices],
            open_image=lambda i: self.open_image(chosen[i]),
        )


@dataclass(frozen=True)
class Listing:
    """What a source found. `val` is None when the source has no validation images of its own.

    `native_size` is the input size at which this set is best learnt when the model's own would be waste
    (None: the model's), `flip` whether a mirrored image keeps its label, `corrupt` the files left out, as
    {"file": …, "reason": …}.
    """

    train: ImageSet
    val: ImageSet | None = None
    native_size: int | None = None
    flip: bool = True
    corrupt: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Dataset:
    """Training and validation images.

    `whole` is the set that they were split from, None when the source came with its own validation images.
    """

    listing: Listing
    train: ImageSet
    val: ImageSet
    whole: ImageSet | None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names

    @property
    def digest(self) -> str:
        """Identity of the images by their names, so that a model can tell whether it was trained on them."""
        images = self.whole or self.train
        return fingerprint.of_value([images.ids, images.labels.tolist()])[:16]

    def evaluation_images(self, trained_on: set[str | None]) -> ImageSet:
        """The images to measure models on, given the digests of the sets they were trained on.

        Without a validation set of its own, the whole set is used, unless a model was trained on its
        training share: then only the held-out images.
        """
        return self.val if self.whole is None or self.digest in trained_on else self.whole

    def summary(self) -> dict[str, Any]:
        """Counts for manifest and report."""
        return {
            "classes": len(self.class_names),
            "train": len(self.train),
            "val": len(self.val),
            "held_out": self.whole is not None,
            "corrupt": self.listing.corrupt[:100],
            "corrupt_count": len(self.listing.corrupt),
        }
