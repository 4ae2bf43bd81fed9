"""Open the data set that a config names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from optkit.core import discover
from optkit.core.errors import InputError, UsageError
from optkit.core.progress import Reporter
from optkit.data.base import CorruptImage, Dataset, ImageSet, Listing
from optkit.data.config import DataConfig, source_name

IMBALANCE = 10  # largest class over smallest


def load_data(config: DataConfig, reporter: Reporter, classes: tuple[str, ...] = ()) -> Dataset:
    """Read the listing, leave out corrupt files, and hold out a validation share where there is none.

    `classes` are the names of the classes of a model that exists already: images of these and no others get its
    labels, and neither share need show all of them.
    """
    listing = _with_classes(_list(config.path, config), classes)
    if config.val is not None:
        other = _with_classes(_list(config.val, config), classes)
        listing = _with_validation(listing, other)
    if config.strict:
        listing = _strict(listing, reporter)
    if listing.corrupt:
        reporter.warn(f"Skipped {_describe(listing.corrupt)}.")
    if len(listing.train.class_names) < 2:
        raise InputError(
            f"{config.path!r} has one class only: {listing.train.class_names[0]!r}.",
            why="A classifier needs at least two.",
            hint="Give a folder with one sub-folder per class.",
        )
    if listing.val is not None:
        return Dataset(listing, listing.train, listing.val, whole=None)
    train, val = split_stratified(listing.train, config.val_fraction)
    return Dataset(listing, train, val, whole=listing.train)


def warn_of_imbalance(dataset: Dataset, sampling: str, reporter: Reporter) -> None:
    """Warn when training sees one class far more often than another."""
    if dataset.imbalance > IMBALANCE and sampling == "natural":
        counts = np.bincount(dataset.train.labels, minlength=len(dataset.class_names))
        largest, smallest = (dataset.class_names[i] for i in (counts.argmax(), counts.argmin()))
        reporter.warn(
            f"IMBALANCED CLASSES: {counts.max()} images of {largest!r} for {counts.min()} of {smallest!r}; the "
            "rare class will be guessed seldom. Try --sampling balanced."
        )


def check_classes(class_names: tuple[str, ...], dataset: Dataset) -> None:
    """UsageError unless a model that has `class_names` was made for the classes of `dataset`."""
    if class_names != dataset.class_names:
        raise UsageError(
            "The model and the data have different classes.",
            why=f"The model has {len(class_names)} ({', '.join(class_names[:3])} …), "
            f"the data {len(dataset.class_names)} ({', '.join(dataset.class_names[:3])} …).",
            hint="Fine-tune the model on this data first.",
        )


def _list(path: str, config: DataConfig) -> Listing:
    source = discover.load("optkit.data.sources", source_name(path), "data source")
    listing: Listing = source.load(path, config)
    train, *val = (_printable_set(share) for share in (listing.train, listing.val) if share is not None)
    corrupt = [{name: _printable(text) for name, text in entry.items()} for entry in listing.corrupt]
    return replace(listing, train=train, val=val[0] if val else None, corrupt=corrupt)


def _printable(text: str) -> str:
    """File names that are not UTF-8 with the odd bytes spelled out, as in `caf\\udce9.jpg`."""
    return text.encode(errors="backslashreplace").decode()


def _printable_set(images: ImageSet) -> ImageSet:
    if odd := [name for name in images.class_names if _printable(name) != name]:
        raise InputError(
            f"The class name {_printable(odd[0])!r} is not valid text.",
            why="It is not UTF-8.",
            hint="Rename the class, in ASCII say.",
        )
    return replace(images, ids=tuple(map(_printable, images.ids)))


def _with_validation(listing: Listing, other: Listing) -> Listing:
    """`listing` with the images of `other`, of whatever share, as validation images."""
    val = other.val or other.train
    return Listing(
        train=listing.train,
        val=relabel(val, listing.train.class_names),
        native_size=listing.native_size,
        flip=listing.flip,
        corrupt=listing.corrupt + other.corrupt,
    )


def _with_classes(listing: Listing, classes: tuple[str, ...]) -> Listing:
    """`listing` with labels as indices into `classes`, where it shows no other."""
    shown = {*listing.train.class_names, *(listing.val.class_names if listing.val else ())}
    if not shown <= set(classes):
        return listing
    val = None if listing.val is None else relabel(listing.val, classes)
    return replace(listing, train=relabel(listing.train, classes), val=val)


def relabel(images: ImageSet, class_names: tuple[str, ...]) -> ImageSet:
    """Labels as indices into `class_names`; InputError for a class that is not among them."""
    if unknown := sorted(set(images.class_names) - set(class_names)):
        raise InputError(
            f"Validation has classes that training lacks: {', '.join(unknown[:5])}.",
            hint="Use the same classes in both.",
        )
    index = np.array([class_names.index(name) for name in images.class_names])
    return replace(images, class_names=class_names, labels=index[images.labels])


def split_stratified(images: ImageSet, fraction: float) -> tuple[ImageSet, ImageSet]:
    """Hold out `fraction` of every class that has two images or more: those of the smallest hashes.

    So a larger fraction holds out the same images and more, and what else lies in the set hardly matters.
    """
    order = np.argsort(np.array(images.hashes()), kind="stable")
    held_out = np.zeros(len(images), bool)
    for label in range(len(images.class_names)):
        members: NDArray[np.int64] = order[images.labels[order] == label]
        if len(members) > 1:  # a class of one image stays in training
            held_out[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    return images.subset(np.flatnonzero(~held_out)), images.subset(np.flatnonzero(held_out))


def _strict(listing: Listing, reporter: Reporter) -> Listing:
    """The listing after every image of it was decoded; InputError when one cannot be, now or later."""
    shares = [share for share in (listing.train, listing.val) if share is not None]
    corrupt = listing.corrupt + [entry for share in shares for entry in _undecodable(share, reporter)]
    if corrupt:
        raise _refused(corrupt)
    train, *val = (replace(share, open_image=_opener(share)) for share in shares)
    return replace(listing, train=train, val=val[0] if val else None)


def _undecodable(images: ImageSet, reporter: Reporter) -> list[dict[str, str]]:
    def reason(index: int) -> str | None:
        try:
            images.open_image(index)
        except CorruptImage as error:
            return str(error)
        return None

    corrupt = []
    with ThreadPoolExecutor() as pool, reporter.track("checking images", len(images)) as task:
        for name, found in zip(images.ids, pool.map(reason, range(len(images))), strict=True):
            if found:
                corrupt.append({"file": name, "reason": found})
            task.advance()
    return corrupt


def _opener(images: ImageSet) -> Callable[[int], Image.Image]:
    def open_image(index: int) -> Image.Image:
        try:
            return images.open_image(index)
        except CorruptImage as error:
            raise _refused([{"file": images.ids[index], "reason": str(error)}]) from None

    return open_image


def _refused(corrupt: list[dict[str, str]]) -> InputError:
    return InputError(
        f"{_describe(corrupt)}.",
        why="--strict refuses corrupt images.",
        hint="Mend or remove them, or leave --strict out to skip them.",
    )


def _describe(corrupt: list[dict[str, str]]) -> str:
    seen: Counter[str] = Counter()
    ranks = []
    for entry in corrupt:
        ranks.append(seen[entry["reason"]])
        seen[entry["reason"]] += 1
    # Every reason once before any twice.
    order = sorted(range(len(corrupt)), key=ranks.__getitem__)[:5]
    shown = ", ".join(f"{corrupt[i]['file']} ({corrupt[i]['reason']})" for i in order)
    more = f" and {len(corrupt) - 5} more" if len(corrupt) > 5 else ""
    return f"{len(corrupt)} corrupt image{'s' if len(corrupt) > 1 else ''}: {shown}{more}"
