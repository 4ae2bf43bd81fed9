"""What every data source yields."""

from __future__ import annotations

import io
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from optkit.core import fingerprint
from optkit.core.errors import MissingError
from optkit.core.progress import Reporter
from optkit.core.types import TrainedOn

SAMPLE = 64  # enough to notice a set of which only a tenth is asked for
DESCRIBED = 256  # images whose headers the data card is made of
# What Pillow raises for damaged files.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class CorruptImage(Exception):
    """An image that cannot be decoded; `str(error)` is the reason."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images that are opened one at a time.

    `ids[i]` names image i (a path relative to its root), `labels[i]` is its class index, `open_image(i)`
    decodes it as RGB and raises CorruptImage when that fails. `identities[i]` tells the image apart wherever
    it lies: "<class>/<file name>:<bytes>" for files. `read_image(i)` is the encoded file as it is stored, with
    CorruptImage when that fails; None: the images are drawn, not stored.
    """

    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    open_image: Callable[[int], Image.Image]
    identities: tuple[str, ...]
    read_image: Callable[[int], bytes] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def hashes(self) -> list[str]:
        """A short hash of every identity: 16 hexadecimal digits, evenly spread and the same everywhere."""
        return [fingerprint.of_value(identity)[:16] for identity in self.identities]

    def facts(self) -> dict[str, Any]:
        """File formats, and smallest, middle and largest width and height of some images spread over the set."""
        formats: Counter[str] = Counter()
        sizes = []
        for index in np.unique(np.linspace(0, len(self) - 1, min(len(self), DESCRIBED)).astype(int)):
            try:
                kind, size = self._header(int(index))
            except CorruptImage:
                continue
            except MissingError:  # the network is gone: the card is not worth stopping for
                break
            formats[kind] += 1
            sizes.append(size)
        sides = {} if not sizes else dict(zip(("width", "height"), zip(*sizes, strict=True), strict=True))
        extremes = {
            name: {"min": min(values), "median": int(np.median(values)), "max": max(values)}
            for name, values in sides.items()
        }
        return {"sampled": len(sizes), "formats": dict(formats.most_common()), **extremes}

    def _header(self, index: int) -> tuple[str, tuple[int, int]]:
        """Format and (width, height), upright, without decoding where the image is a file."""
        if self.read_image is None:
            return "drawn", self.open_image(index).size
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(self.read_image(index))) as image:
                    size = image.size
                    # Asking a PNG for it would decode it whole; the size of a TIFF is upright.
                    exif = image.getexif() if image.format in ("JPEG", "MPO", "WEBP", "AVIF") else {}
                    turned = exif.get(ExifTags.Base.Orientation, 1) >= 5
        except DECODE_ERRORS as error:
            raise CorruptImage(str(error)) from None
        return image.format or "unknown", size[::-1] if turned else size

    def subset(self, indices: NDArray[np.int64]) -> ImageSet:
        """The images at `indices`, in that order."""
        chosen = [int(index) for index in indices]
        read_image = self.read_image
        return ImageSet(
            class_names=self.class_names,
            ids=tuple(self.ids[index] for index in chosen),
            labels=self.labels[indices],
            open_image=lambda i: self.open_image(chosen[i]),
            identities=tuple(self.identities[index] for index in chosen),
            read_image=None if read_image is None else lambda i: read_image(chosen[i]),
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
class Leaks:
    """Images that lie on both sides of the split, or in training under several classes.

    `exact` and `near` count validation images with a copy in training, `contradictory` training images whose
    copy has another class, `checked` the images looked at. `content_only` of these are drawn, flat or under 32
    pixels: near copies of them are not found. `pairs`: (training id, other id, kind), the first 50.
    """

    exact: int
    near: int
    contradictory: int
    checked: int
    pairs: list[tuple[str, str, str]]
    content_only: int = 0


@dataclass(frozen=True)
class Dataset:
    """Training and validation images.

    `whole` is the set that they were split from, None when the source came with its own validation images;
    `leaks` is None while nobody has looked for them.
    """

    listing: Listing
    train: ImageSet
    val: ImageSet
    whole: ImageSet | None
    leaks: Leaks | None = None

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
        """The data card for manifest and report."""
        counts = {name: self._counts(images) for name, images in (("train", self.train), ("val", self.val))}
        return {
            "classes": len(self.class_names),
            "train": len(self.train),
            "val": len(self.val),
            "held_out": self.whole is not None,
            "corrupt": self.listing.corrupt[:100],
            "corrupt_count": len(self.listing.corrupt),
            "per_class": {
                label: [counts["train"][label], counts["val"][label]] for label in self.class_names
            },
            "imbalance": self.imbalance,
            "images": self.train.facts(),
            "leaks": None if self.leaks is None else asdict(self.leaks),
        }

    @property
    def imbalance(self) -> float:
        """Training images of the largest class for each one of the smallest."""
        counts = self._counts(self.train).values()
        return round(max(counts) / max(1, min(counts)), 2)

    def _counts(self, images: ImageSet) -> dict[str, int]:
        found = np.bincount(images.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, found.tolist(), strict=True))


def _held_out(images: ImageSet, hashes: list[str], trained: TrainedOn) -> NDArray[np.bool_]:
    """Which images were surely not trained on. All, as far as known, where the source held out none by hash."""
    if not trained.boundaries:
        return np.ones(len(images), bool)
    # An image of a class that the model never saw has no boundary: it is below any ("~" follows every digit).
    bounds = [trained.boundaries.get(name, "~") for name in images.class_names]
    found = [value < bounds[label] for value, label in zip(hashes, images.labels, strict=True)]
    return np.array(found, bool)
