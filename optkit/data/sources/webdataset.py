"""WebDataset shards: tar files, here or on a web server, in which `0001.jpg` lies beside `0001.cls` or `0001.json`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np

from optkit.core.errors import InputError
from optkit.data.base import ImageSet, Listing
from optkit.data.config import DataConfig
from optkit.data.images import decode_rgb
from optkit.data.load import relabel
from optkit.data.shards import classes_file, find_shards, short_names, split_by_name
from optkit.data.table import class_order
from optkit.data.tars import TarImage, index_tar, read_tar_image


def load(path: str, config: DataConfig) -> Listing:
    """Classes are the lines of classes.txt beside the shards or above train/ and val/, else the distinct labels."""
    shards = find_shards(path)
    names = _class_names(shards)
    shares = split_by_name(shards)
    short = dict(zip(shards, short_names(shards), strict=True))
    chosen = [shard for share in shares for shard in share]
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(chosen, pool.map(index_tar, chosen, map(short.get, chosen)), strict=True))
    corrupt: list[dict[str, str]] = []
    sets = []
    for share in shares:
        images = []
        for shard in share:
            images += found[shard][0]
            corrupt += found[shard][1]
        sets.append(_image_set(images, names) if images else None)
    if sets[0] is None:
        raise InputError(
            f"{path!r} has no labelled image.",
            why=f"The first: {corrupt[0]['file']}: {corrupt[0]['reason']}." if corrupt else "",
            hint="Shards hold 0001.jpg beside 0001.cls (a number or class name) or 0001.json with a label.",
        )
    val = None if sets[1] is None else relabel(sets[1], sets[0].class_names)
    return Listing(train=sets[0], val=val, corrupt=corrupt)


def _image_set(images: list[TarImage], names: list[str] | None) -> ImageSet:
    known = None
    if names is not None:
        known = {str(number): name for number, name in enumerate(names)} | {name: name for name in names}
    labels = [_name(image, known) for image in images]
    used = set(labels)
    order = class_order(used) if names is None else [name for name in names if name in used]
    index = {name: number for number, name in enumerate(order)}

    def read_image(i: int) -> bytes:
        return read_tar_image(images[i])

    return ImageSet(
        class_names=tuple(order),
        ids=tuple(image.name for image in images),
        labels=np.array([index[label] for label in labels], np.int64),
        open_image=lambda i: decode_rgb(read_image(i)),
        identities=tuple(
            f"{label}/{PurePosixPath(image.name).name}:{image.size}"
            for label, image in zip(labels, images, strict=True)
        ),
        read_image=read_image,
    )


def _name(image: TarImage, names: dict[str, str] | None) -> str:
    """The class name that a label means: itself, or the number of a line in classes.txt."""
    if names is None:
        return image.label
    if image.label in names:
        return names[image.label]
    raise InputError(
        f"{image.name} has the label {image.label!r}, which classes.txt lacks.",
        why=f"Known: {', '.join(list(dict.fromkeys(names.values()))[:5])} …, or their numbers.",
        hint="Give every class a line; the first is number 0.",
    )


def _class_names(shards: list[str]) -> list[str] | None:
    """The lines of classes.txt; None when there is none."""
    found = classes_file(shards)
    if found is None:
        return None
    file, data = found
    try:
        names = [line.strip() for line in data.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{file!r} is not a text file.", why=str(error), hint="Save it as UTF-8.") from None
    if len(set(names)) < len(names):
        raise InputError(f"{file!r} names a class twice.", hint="Give every class a name of its own.")
    return names
