"""Small data sets of every kind, made for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(seed: int, size: tuple[int, int] = (24, 20), kind: str = "JPEG", quality: int = 90) -> bytes:
    """An encoded image of noise, made of 6×5 random squares so that copies keep their looks."""
    pixels = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(stream, kind, quality=quality)
    return stream.getvalue()


def labelled(classes: tuple[str, ...], each: int, first: int = 0) -> Iterator[tuple[str, str, bytes]]:
    """(name, class, encoded image) of `each` images per class, all different."""
    for number, name in enumerate(classes):
        for index in range(each):
            seed = first + number * each + index
            yield f"{seed:04d}", name, jpeg(seed)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write_shard(path: Path, each: int = 4, first: int = 0, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """A shard whose labels are class names in .cls files."""
    members: dict[str, bytes] = {}
    for name, label, data in labelled(classes, each, first):
        members |= {f"{name}.jpg": data, f"{name}.cls": label.encode()}
    return write_tar(path, members)


def write_folder(
    root: Path, each: int = 4, first: int = 0, classes: tuple[str, ...] = ("cat", "dog")
) -> Path:
    """root/<class>/<name>.jpg."""
    for name, label, data in labelled(classes, each, first):
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / f"{name}.jpg").write_bytes(data)
    return root
