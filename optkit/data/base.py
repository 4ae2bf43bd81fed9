"""What every data source yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from optkit.core import fingerprint
from optkit.core.progress import Reporter
from optkit.core.types import TrainedOn

SAMPLE = 64  # enough to notice a set of which only a tenth is asked for


class CorruptImage(Exception):
    """An image that cannot be decoded; `str(error)` is the reason."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images that are opened one at a time.

    `ids[i]` names image i (a path relative to its root), `labels[i]` is its class index, `open_image(i)`
    decodes it as RGB and raises CorruptImage when that fails. `identities[i]` tells the image apart wherever
    it lies: "<class>/<file name>:<bytes>" for files.
    """

    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    open_image: Callable[[int], Image.Image]
    identities: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def hashes(self) -> list[str]:
        """A short hash of every identity: 16 hexadecimal digits, evenly spread and the same everywhere."""
        return [fingerprint.of_value(identity)[:16] for identity in self.identities]

    def subset(self, indices: NDArray[np.int64]) -> ImageSet:
        """The images at `indices`, in that order."""
        chosen = [int(index) for index in indices]
        return ImageSet(
            class_names=self.class_names,
            ids=tuple(self.ids[index] for index in chosen),
            labels=self.labels[indices],
            open_image=lambda i: self.open_image(chosen[i]),
            identities=tuple(self.identities[index] for index in chosen),
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

    def trained_on(self) -> TrainedOn:
        """What a model remembers of the images that it was trained on."""
        hashes = self.train.hashes()
        boundaries: dict[str, str] = {}
        if self.whole is not None:
            for label, value in zip(self.train.labels, hashes, strict=True):
                name = self.class_names[label]
                boundaries[name] = min(value, boundaries.get(name, value))
        return TrainedOn(sample=tuple(sorted(hashes)[:SAMPLE]), boundaries=boundaries)

    def evaluation_images(self, trained: Iterable[TrainedOn], reporter: Reporter) -> ImageSet:
        """The images to measure models on, given what they were trained on; warns when they saw them.

        The source's own validation images, else the whole set; where a model was trained on a share of it,
        only the images that were held out then, whatever was added to the set since.
        """
        images = self.val if self.whole is None else self.whole
        hashes = images.hashes()
        seen = [one for one in trained if not set(one.sample).isdisjoint(hashes)]
        honest = np.ones(len(images), bool)
        for one in seen:
            honest &= _held_out(images, hashes, one)
        if self.whole is not None and honest.any():
            kept = images.subset(np.flatnonzero(honest))
            if len(kept) < len(images):
                reporter.info(f"Measuring on {len(kept)} held-out images of {len(images)}.")
        else:
            kept = images
        if any(not one.boundaries for one in seen) or len(kept) > honest.sum():
            reporter.warn(
                "TRAINED ON THESE IMAGES: a model was trained on some or all of the images it is measured on; "
                "its accuracy on new images will be lower. Give images it has not seen."
            )
        return kept

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


def _held_out(images: ImageSet, hashes: list[str], trained: TrainedOn) -> NDArray[np.bool_]:
    """Which images were surely not trained on. All, as far as known, where the source held out none by hash."""
    if not trained.boundaries:
        return np.ones(len(images), bool)
    # An image of a class that the model never saw has no boundary: it is below any ("~" follows every digit).
    bounds = [trained.boundaries.get(name, "~") for name in images.class_names]
    found = [value < bounds[label] for value, label in zip(hashes, images.labels, strict=True)]
    return np.array(found, bool)
