"""Images that lie in training and in validation: measured accuracy is too high by them.

Exact copies have the same digest. Near copies (saved again, resized, a little brighter) have alike difference
hashes (N. Krawetz, "Kind of Like That", 2013) and, to keep photos of the same kind apart, the same detail: a
small grey picture less its own 3×3 mean. Of 4.5 million pairs of cat and dog photos no two different ones
correlate in that by more than 0.48; 97 of 100 copies that are compressed to JPEG quality 10, shrunk to a third
or brightened by a fifth do by more than 0.95. Copies that are mirrored, turned or cropped by more than a
fiftieth are not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from optkit.core.progress import Reporter, Task
from optkit.data.base import CorruptImage, Dataset, ImageSet, Leaks
from optkit.data.config import TrainingDataConfig
from optkit.data.images import decode_pixels

LIMIT = 50_000  # images looked at: about a minute of one core
SIDE = 32
MAX_DISTANCE = 8  # of 64 bits
MIN_CORRELATION = 0.9
MIN_DETAIL = 2.0  # standard deviation of 0…255 below which a picture shows nothing to compare
NO_PICTURE = np.zeros((SIDE, SIDE), np.uint8)
SHOWN_PAIRS = 50
MAX_ALIKE = 500  # pictures of alike hashes that one is compared with: the hash of a bare one says little


@dataclass(frozen=True)
class Prints:
    """What tells images apart: SHA-256 `digests`, 64-bit `hashes` and `details` (n, …) of pictures.

    `indices` are theirs in the image set; images that cannot be decoded are left out.
    """

    indices: list[int]
    digests: list[bytes]
    hashes: NDArray[np.uint64]
    details: NDArray[np.float32]


def with_leaks(dataset: Dataset, config: TrainingDataConfig, reporter: Reporter) -> Dataset:
    """`dataset` with its leaks, looked for unless `config` says not to."""
    return replace(dataset, leaks=find_leaks(dataset, reporter)) if config.check_leaks else dataset


def find_leaks(dataset: Dataset, reporter: Reporter) -> Leaks:
    """Look for copies between training and validation, and for contradictory labels; warns of them.

    Among more than LIMIT images it looks at a sample.
    """
    train, val = dataset.train, dataset.val
    chosen_train, chosen_val = _sample(len(train), len(val))
    checked = len(chosen_train) + len(chosen_val)
    if checked < len(train) + len(val):
        reporter.info(f"Looking for copies among {checked:,} of {len(train) + len(val):,} images.")
    with reporter.track("looking for copies", checked) as task:
        prints = [
            look_at(images, chosen, task) for images, chosen in ((train, chosen_train), (val, chosen_val))
        ]
    exact, near = find_copies(*prints)
    contradictory = _contradictory(train, prints[0])
    leaks = Leaks(
        exact=len(exact),
        near=len(near),
        contradictory=len(contradictory),
        checked=checked,
        pairs=[
            *((train.ids[i], val.ids[j], "exact") for i, j in exact),
            *((train.ids[i], val.ids[j], "near") for i, j in near),
            *((train.ids[i], train.ids[j], "contradictory") for i, j in contradictory),
        ][:SHOWN_PAIRS],
        content_only=sum(int((~share.details.any(1)).sum()) for share in prints),
    )
    if leaks.content_only and train.read_image is not None:
        reporter.info(
            f"{leaks.content_only:,} images are flat or under {SIDE} pixels: only exact copies of them are found."
        )
    if leaks.pairs:
        reporter.warn(_warning(leaks, len(chosen_val)))
    return leaks


def look_at(images: ImageSet, chosen: NDArray[np.int64], task: Task) -> Prints:
    """Read and decode the `chosen` images; one that cannot be decoded is left out."""
    found = []
    for print_ in _prints(images, chosen):
        found.append(print_)
        task.advance()
    return _collect(found)


def find_copies(first: Prints, second: Prints) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Exact and near copies: (index of the original in `first`'s set, index in `second`'s).

    Every image of `second` is named once at most.
    """
    exact = _exact(first, second)
    return exact, _near(first, second, {other for _, other in exact})


def _sample(train: int, val: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which images to look at: all, or as many of validation as fit half of LIMIT and then of training."""
    of_val = min(val, max(LIMIT // 2, LIMIT - train))
    of_train = min(train, LIMIT - of_val)
    rng = np.random.default_rng(0)
    return np.sort(rng.permutation(train)[:of_train]), np.sort(rng.permutation(val)[:of_val])


def _prints(
    images: ImageSet, chosen: NDArray[np.int64]
) -> Iterator[tuple[int, bytes, NDArray[np.uint8]] | None]:
    """(index, digest, small grey picture) of each chosen image; None for one that cannot be decoded."""

    def one(index: int) -> tuple[int, bytes, NDArray[np.uint8]] | None:
        try:
            if images.read_image is None:
                # Drawings are alike without being copies: only the same pixels count.
                return index, hashlib.sha256(images.open_image(index).tobytes()).digest(), NO_PICTURE
            data = images.read_image(index)
            return index, hashlib.sha256(data).digest(), _picture(decode_pixels(data, 2 * SIDE))
        except CorruptImage:
            return None

    with ThreadPoolExecutor() as pool:
        yield from pool.map(one, chosen.tolist())


def _picture(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if min(pixels.shape[:2]) < SIDE:  # has no detail
        return NO_PICTURE
    grey = Image.fromarray(pixels).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0))


def _collect(found: list[tuple[int, bytes, NDArray[np.uint8]] | None]) -> Prints:
    good = [one for one in found if one is not None]
    pictures = np.array([picture for _, _, picture in good], np.uint8).reshape(-1, SIDE, SIDE)
    return Prints(
        [index for index, _, _ in good],
        [digest for _, digest, _ in good],
        _hashes(pictures),
        _details(pictures),
    )


def _hashes(pictures: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """64 bits per picture: which of two neighbours in a row is brighter, on 8 rows of 9."""
    rows = pictures.reshape(-1, 8, SIDE // 8, SIDE).mean(2)
    edges = np.linspace(0, SIDE, 10).round().astype(int)
    cells = np.stack([rows[:, :, a:b].mean(2) for a, b in pairwise(edges)], axis=2)
    bits = cells[:, :, 1:] > cells[:, :, :-1]
    return np.packbits(bits.reshape(-1, 64), axis=1).view(np.uint64).reshape(-1)


def _exact(train: Prints, val: Prints) -> list[tuple[int, int]]:
    """(training index, validation index) of the validation images that have the digest of a training image."""
    first = dict(zip(reversed(train.digests), reversed(train.indices), strict=True))
    pairs = zip(val.digests, val.indices, strict=True)
    return [(first[digest], index) for digest, index in pairs if digest in first]


def _near(train: Prints, val: Prints, known: set[int]) -> list[tuple[int, int]]:
    """The same for near copies; validation images in `known` are left out."""
    pairs = []
    rows = np.flatnonzero(train.details.any(1))
    hashes = train.hashes[rows]
    for row in np.flatnonzero(val.details.any(1)).tolist():
        # Every pair is compared: at LIMIT that is two seconds, of which an index would save little.
        distance = np.bitwise_count(hashes ^ val.hashes[row])
        alike = np.flatnonzero(distance <= MAX_DISTANCE)
        if val.indices[row] in known or not len(alike):
            continue
        if len(alike) > MAX_ALIKE:
            alike = alike[np.argsort(distance[alike], kind="stable")[:MAX_ALIKE]]
        correlation = train.details[rows[alike]] @ val.details[row]
        if correlation.max() >= MIN_CORRELATION:
            pairs.append((train.indices[rows[alike[correlation.argmax()]]], val.indices[row]))
    return pairs


def _details(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures less their 3×3 mean as rows of length 1, so that a product is a correlation; zeros where flat."""
    inner = pictures[:, 1:-1, 1:-1].astype(np.float32)
    for row, column in np.ndindex(3, 3):
        inner -= pictures[:, row : row + SIDE - 2, column : column + SIDE - 2].astype(np.float32) / 9
    flat = inner.reshape(len(pictures), (SIDE - 2) ** 2)
    flat -= flat.mean(1, keepdims=True)
    deviation = flat.std(1, keepdims=True)
    return np.where(deviation < MIN_DETAIL, 0, flat / np.maximum(deviation, 1e-6) / (SIDE - 2))


def _contradictory(train: ImageSet, prints: Prints) -> list[tuple[int, int]]:
    """(first, other) training index of the images that have the digest of one of another class."""
    first: dict[bytes, int] = {}
    pairs = []
    for digest, index in zip(prints.digests, prints.indices, strict=True):
        other = first.setdefault(digest, index)
        if train.labels[other] != train.labels[index]:
            pairs.append((other, index))
    return pairs


def _warning(leaks: Leaks, validated: int) -> str:
    parts = []
    if leaks.exact or leaks.near:
        parts.append(
            f"LEAK: {leaks.exact + leaks.near} of {validated} validation images are in training too "
            f"({leaks.exact} exact, {leaks.near} near copies); accuracy on new images will be lower."
        )
    if leaks.contradictory:
        parts.append(
            f"CONTRADICTORY LABELS: {leaks.contradictory} training image(s) are copies of one of another class."
        )
    shown = ", ".join(f"{other} = {first}" for first, other, _ in leaks.pairs[:3])
    return f"{' '.join(parts)} For example {shown}. Remove the copies."
