"""A CSV file with the columns path,label; paths are relative to the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from optkit.core.errors import InputError
from optkit.data.base import ImageSet, Listing
from optkit.data.config import DataConfig
from optkit.data.images import identity, open_rgb, quick_check, read_file
from optkit.data.table import class_order, read_table


def load(path: str, config: DataConfig) -> Listing:
    """Classes are the distinct labels."""
    file = Path(path)
    rows = read_table(file)
    names = class_order(label for _, label in rows)
    corrupt: list[dict[str, str]] = []
    good = []
    for name, label in rows:
        image = file.parent / name
        if not image.is_file():
            corrupt.append({"file": name, "reason": "missing"})
        elif reason := quick_check(image):
            corrupt.append({"file": name, "reason": reason})
        else:
            good.append((name, label))
    if not good:
        raise InputError(
            f"None of the {len(rows)} images in {path!r} can be read.",
            why=f"The first: {corrupt[0]['file']}: {corrupt[0]['reason']}.",
            hint="Paths in the file are relative to the file's folder.",
        )
    if lost := sorted(set(names) - {label for _, label in good}):
        example = next(name for name, label in rows if label == lost[0])
        reasons = {entry["file"]: entry["reason"] for entry in corrupt}
        raise InputError(
            f"No image of the class {lost[0]!r} in {path!r} can be read.",
            why=f"The first: {example}: {reasons[example]}.",
            hint="Mend the paths of its images, or remove their lines.",
        )
    images = ImageSet(
        class_names=tuple(names),
        ids=tuple(name for name, _ in good),
        labels=np.array([names.index(label) for _, label in good], np.int64),
        open_image=lambda index: open_rgb(file.parent / good[index][0]),
        identities=tuple(identity(label, file.parent / name) for name, label in good),
        read_image=lambda index: read_file(file.parent / good[index][0]),
    )
    return Listing(train=images, corrupt=corrupt)
