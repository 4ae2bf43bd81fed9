"""Image files named on a command line; light, as the fingerprint of a config needs them too."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from optkit.core.errors import InputError

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jfif",
        ".jpe",
        ".png",
        ".bmp",
        ".webp",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".avif",
    }
)
HINT = "Give an image, a folder of images, or a quoted pattern such as 'photos/*.jpg'."


def is_image(path: Path) -> bool:
    """Whether the file's ending is that of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find_images(names: Iterable[str]) -> list[Path]:
    """The image files that `names` (files, folders, patterns) mean, sorted.

    A folder is searched through, less its hidden folders, and so is `**` in a pattern. InputError when there
    is none.
    """
    names = list(names)
    found = {file for name in names for file in _files(name)}
    if not found and not any(Path(name).is_dir() for name in names):
        raise InputError(f"No file matches {', '.join(names)!r}.", hint=HINT)
    images = sorted(filter(is_image, found))
    if not images:
        raise InputError(f"{', '.join(names)!r} holds no image.", hint=HINT)
    return images


def _files(name: str) -> Iterable[Path]:
    path = Path(name)
    if path.is_dir():
        return _below(path)
    if path.is_file():
        return [path]
    return [file for file in map(Path, glob.glob(name, recursive=True)) if file.is_file()]


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (path for name in files if (path := Path(parent, name)).is_file())
