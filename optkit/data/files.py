"""Image files named on a command line."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from optkit.core.errors import InputError

NO_IMAGES_HINT = "Give an image, a folder of images, or a quoted pattern such as 'photos/*.jpg'."


def find_files(names: Iterable[str]) -> list[Path]:
    """The files that `names` (files, folders, patterns) mean, sorted; a folder's may not all be images.

    A folder is searched through, and so is `**` in a pattern. InputError when there is none.
    """
    found = sorted({file for name in names for file in _files(name)})
    if not found:
        raise InputError(f"No file matches {', '.join(names)!r}.", hint=NO_IMAGES_HINT)
    return found


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    if path.is_file():
        return [path]
    return [file for file in map(Path, glob.glob(name, recursive=True)) if file.is_file()]
