"""Open the data set that a config names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optkit.core import discover
from optkit.core.errors import InputError, UsageError
from optkit.core.progress import Reporter
from optkit.data.base import Dataset, ImageSet, Listing
from optkit.data.config import DataConfig, source_name

SPLIT_SEED = 0  # fixed: the same images are held out in every run, or they would leak from one into another


def load_data(config: DataConfig, reporter: Reporter) -> Dataset:
    """Read the listing, leave out corrupt files, and hold out a validation share where there is none."""
    listing = _list(config.path, config)
    if config.val is not None:
        listing = _with_validation(listing, _list(config.val, config))
    _report_corrupt(listing, config.strict, reporter)
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
    return listing


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


def relabel(images: ImageSet, class_names: tuple[str, ...]) -> ImageSet:
    """Labels as indices into `class_names`; InputError for a class that is not among them."""
    if unknown := sorted(set(images.class_names) - set(class_names)):
        raise InputError(
            f"Validation has classes that training lacks: {', '.join(unknown[:5])}.",
            hint="Use the same class folders in both.",
        )
    index = np.array([class_names.index(name) for name in images.class_names])
    return ImageSet(class_names, images.ids, index[images.labels], images.open_image)


def split_stratified(images: ImageSet, fraction: float) -> tuple[ImageSet, ImageSet]:
    """Hold out `fraction` of every class that has two images or more; the same ones every time."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    held_out = np.zeros(len(images), bool)
    for label in range(len(images.class_names)):
        members: NDArray[np.int64] = order[images.labels[order] == label]
        if len(members) > 1:  # a class of one image stays in training
            held_out[members[: max(1, round(fraction * len(members)))]] = True
    return images.subset(np.flatnonzero(~held_out)), images.subset(np.flatnonzero(held_out))


def _report_corrupt(listing: Listing, strict: bool, reporter: Reporter) -> None:
    if not listing.corrupt:
        return
    shown = ", ".join(f"{entry['file']} ({entry['reason']})" for entry in listing.corrupt[:5])
    more = f" and {len(listing.corrupt) - 5} more" if len(listing.corrupt) > 5 else ""
    count = f"{len(listing.corrupt)} corrupt image" + ("s" if len(listing.corrupt) > 1 else "")
    if strict:
        raise InputError(
            f"{count}: {shown}{more}.",
            why="--strict refuses corrupt images.",
            hint="Mend or remove them, or leave --strict out to skip them.",
        )
    reporter.warn(f"Skipped {count}: {shown}{more}.")
