"""Image files without labels, read as every other image set is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optkit.data.base import CorruptImage, ImageSet
from optkit.data.images import open_rgb, read_file


def unlabelled_images(files: Sequence[Path]) -> ImageSet:
    """The files as a set, named as given; all of them are of a class without a name."""
    names = tuple(map(str, files))
    return ImageSet(
        class_names=("",),
        ids=names,
        labels=np.zeros(len(files), np.int64),
        open_image=lambda index: open_rgb(files[index]),
        identities=names,
        read_image=lambda index: read_file(files[index]),
    )


def unread(images: ImageSet, read: Sequence[int]) -> list[dict[str, str]]:
    """The images that are not among those `read`, as {"file": …, "reason": …}."""
    found = []
    for index in sorted(set(range(len(images))).difference(read)):
        reason = "corrupt"
        try:
            images.open_image(index)
        except CorruptImage as error:
            reason = str(error)
        found.append({"file": images.ids[index], "reason": reason})
    return found
