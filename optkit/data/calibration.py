"""The images that ranges are taken from: chosen evenly over the classes, none of them a validation image.

The choice is written down as `calibration.json`: names, classes and digests of what the files hold, so that the
same images can be used again, and are known to be the same.

Copies of validation images would make INT8 look better on them than it is. Others are taken in their place, as
any training image serves as well; the defect of the data is warned of. Looking costs about 1 ms of one core for an
image: near copies are looked for among NEAR_LIMIT validation images spread over the set, exact ones among these and
among all files with as many bytes as a chosen one, which are few unless the format does not compress.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from optkit.core import fingerprint
from optkit.core.errors import InputError
from optkit.core.progress import Reporter, Task
from optkit.core.store import write_atomically
from optkit.core.types import Format, Record
from optkit.data.base import Dataset, ImageSet
from optkit.data.leaks import Prints, find_copies, look_at
from optkit.data.sampling import stratified_order

NEAR_LIMIT = 1_000
ROUNDS = 3  # of replacing copies: more of them mean that training and validation are the same images
SHOWN = 5


class ChosenImage(Record):
    """One calibration image; `sha256` is of its file, or of its pixels where it is drawn."""

    name: str
    label: str
    sha256: str


class CalibrationRecord(Record):
    """What `calibration.json` holds. `digest` is the same for the same pictures, whatever they are called."""

    schema_version: int = 1
    source: str
    seed: int
    digest: str
    per_class: dict[str, int]
    images: tuple[ChosenImage, ...] = Field(min_length=1)


@dataclass(frozen=True)
class CalibrationSet:
    """The chosen images, the SHA-256 of each, and where they come from."""

    images: ImageSet
    digests: tuple[str, ...]
    source: str
    seed: int

    def record(self) -> CalibrationRecord:
        """What is kept of the choice."""
        names = self.images.class_names
        labels = [names[label] for label in self.images.labels]
        counts = Counter(labels)
        chosen = zip(self.images.ids, labels, self.digests, strict=True)
        return CalibrationRecord(
            source=self.source,
            seed=self.seed,
            digest=self.digest,
            per_class={name: counts[name] for name in names},
            images=tuple(ChosenImage(name=name, label=label, sha256=hex_) for name, label, hex_ in chosen),
        )

    @property
    def digest(self) -> str:
        """Tells two calibration sets apart, by what their images hold."""
        return fingerprint.of_value(sorted(self.digests))

    def facts(self) -> dict[str, Any]:
        """How many images of how many classes, and the digest: what a manifest tells."""
        return {
            "calibration_images": len(self.images),
            "classes_present": len(np.unique(self.images.labels)),
            "classes": len(self.images.class_names),
            "calibration_digest": self.digest,
        }

    def write(self, folder: Path) -> None:
        """`calibration.json` in `folder`."""
        write_atomically(folder / Format.IMAGES.filename, self.record().model_dump_json(indent=1) + "\n")


def choose_calibration(
    dataset: Dataset, count: int, seed: int, source: str, reporter: Reporter
) -> CalibrationSet:
    """A stratified sample of `count` training images that are no copies of validation images.

    `source` is what the data set is called. InputError when no image can be read.
    """
    train, order = dataset.train, stratified_order(dataset.train, seed)
    digests: dict[int, str] = {}
    copies: dict[int, str] = {}
    bare: set[int] = set()
    with reporter.track("choosing calibration images") as task:
        validation = _Validation(dataset.val, task)
        for _ in range(ROUNDS):
            new, order = np.split(order, [count - len(digests.keys() - copies.keys())])
            if not len(new):
                break
            prints = look_at(train, new, task)
            for index in sorted(set(new.tolist()) - set(prints.indices)):
                reporter.warn(f"Skipped corrupt image {train.ids[index]}.")
            digests |= {i: one.hex() for i, one in zip(prints.indices, prints.digests, strict=True)}
            copies |= validation.copies(prints, train, task)
            bare |= _bare(prints)
    if not digests:
        raise InputError(
            "There is no image to calibrate with.", hint="Check --data: its training images are used."
        )
    clean = sorted(digests.keys() - copies.keys())
    chosen = clean or sorted([*digests][:count])
    _warn_of_copies(train, copies, bool(clean), reporter)
    images = train.subset(np.array(chosen, np.int64))
    _tell_coverage(images, reporter)
    _warn_of_constants(train, bare.intersection(chosen), len(chosen), reporter)
    return CalibrationSet(images, tuple(digests[index] for index in chosen), source, seed)


def read_calibration(path: Path, dataset: Dataset, reporter: Reporter) -> CalibrationSet:
    """The images that the `calibration.json` at `path` names, out of the training images of `dataset`.

    InputError when some are gone or hold something else now.
    """
    try:
        stored = CalibrationRecord.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        hint = "Choose the images again with `optkit sample`."
        raise InputError(f"{str(path)!r} names no calibration images.", why=why or "", hint=hint) from None
    train = dataset.train
    index = {name: position for position, name in enumerate(train.ids)}
    _refuse_absent(stored, index.keys(), dataset)
    chosen = np.array([index[image.name] for image in stored.images], np.int64)
    with reporter.track("checking calibration images") as task:
        prints = look_at(train, chosen, task)
        copies = _Validation(dataset.val, task).copies(prints, train, task)
    now = {train.ids[i]: one.hex() for i, one in zip(prints.indices, prints.digests, strict=True)}
    if changed := [image.name for image in stored.images if now.get(image.name) != image.sha256]:
        raise InputError(
            f"{_count(changed)} changed since they were chosen: {_shown(changed)}.",
            why=f"The SHA-256 of what they hold is not the one in {str(path)!r}.",
            hint="Restore them, or choose again with `optkit sample`.",
        )
    _warn_of_copies(train, copies, False, reporter)
    images = train.subset(chosen)
    _tell_coverage(images, reporter)
    _warn_of_constants(train, _bare(prints), len(chosen), reporter)
    return CalibrationSet(images, tuple(image.sha256 for image in stored.images), stored.source, stored.seed)


class _Validation:
    """Validation images, looked at as far as is needed to find copies among them."""

    def __init__(self, images: ImageSet, task: Task) -> None:
        self._images = images
        spread = np.linspace(0, len(images) - 1, min(len(images), NEAR_LIMIT)).astype(np.int64)
        self._sample = look_at(images, spread, task)

    def copies(self, prints: Prints, train: ImageSet, task: Task) -> dict[int, str]:
        """The training images among `prints` that are copies, and of what."""
        sizes = {_bytes_of(train, index) for index in prints.indices} - {""}
        alike = [index for index in range(len(self._images)) if _bytes_of(self._images, index) in sizes]
        same_size = look_at(self._images, np.setdiff1d(alike, self._sample.indices).astype(np.int64), task)
        found: dict[int, str] = {}
        for looked in (same_size, self._sample):
            for pairs, kind in zip(find_copies(looked, prints), ("exact", "near"), strict=True):
                found |= {copy: f"{kind} copy of {self._images.ids[original]}" for original, copy in pairs}
        return found


def _bytes_of(images: ImageSet, index: int) -> str:
    """Length of the file, as its identity has it; empty for drawn images."""
    return images.identities[index].rpartition(":")[2] if images.read_image is not None else ""


def _warn_of_copies(train: ImageSet, copies: dict[int, str], left_out: bool, reporter: Reporter) -> None:
    if not copies:
        return
    what = _shown([f"{train.ids[index]} ({text})" for index, text in copies.items()])
    if left_out:
        reporter.warn(
            f"LEAK: {len(copies)} training images are copies of validation images: {what}. "
            "Others were taken to calibrate with; remove the copies."
        )
    else:
        reporter.warn(
            f"LEAK: {len(copies)} calibration images are copies of validation images: {what}. "
            "Accuracy on new images may be lower. Give validation images of their own, with --val."
        )


def _tell_coverage(images: ImageSet, reporter: Reporter) -> None:
    """A class that no image shows is warned of; more classes than images are only noted."""
    absent = sorted(set(range(len(images.class_names))) - set(images.labels.tolist()))
    if not absent:
        return
    classes = len(images.class_names)
    text = f"The {len(images)} calibration images show {classes - len(absent)} of {classes} classes"
    if len(images) < classes:
        reporter.info(f"{text}.")
    else:
        reporter.warn(f"{text}; none shows {_shown([images.class_names[label] for label in absent])}.")


def _bare(prints: Prints) -> set[int]:
    """Images that show no detail, or are too small to tell."""
    return {index for index, detail in zip(prints.indices, prints.details, strict=True) if not detail.any()}


def _warn_of_constants(train: ImageSet, bare: set[int], count: int, reporter: Reporter) -> None:
    """Warn when half of `count` images or more are of one colour; only `bare` ones can be."""
    constant = [
        index
        for index in sorted(bare)
        if all(low == high for low, high in train.open_image(index).convert("RGB").getextrema())
    ]
    if 2 * len(constant) >= count:
        reporter.warn(
            f"CONSTANT IMAGES: {len(constant)} of {count} calibration images are of one colour: "
            f"{_shown([train.ids[index] for index in constant])}. Ranges that come from constant images do not "
            "fit photos. Give images like those the model will see."
        )


def _refuse_absent(stored: CalibrationRecord, known: Container[str], dataset: Dataset) -> None:
    """InputError when a stored image is none of the training images."""
    absent = [image.name for image in stored.images if image.name not in known]
    held_out = set(dataset.val.ids)
    if moved := [name for name in absent if name in held_out]:
        raise InputError(
            f"{_count(moved)} among the validation images now: {_shown(moved)}.",
            why="They were training images when they were chosen: another share is held out.",
            hint="Give the same --val or --val-fraction, or choose again with `optkit sample`.",
        )
    if absent:
        raise InputError(
            f"{_count(absent)} not among the training images: {_shown(absent)}.",
            why=f"They were chosen from {stored.source!r}, and are gone or renamed, or the data is another.",
            hint=f"Give that data (--data {stored.source}), or choose again with `optkit sample`.",
        )


def _count(names: list[str]) -> str:
    return f"{len(names)} calibration image{' is' if len(names) == 1 else 's are'}"


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
