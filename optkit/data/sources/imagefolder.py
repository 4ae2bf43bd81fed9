"""A folder with one sub-folder per class, or with train/ and val/ of such."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from optkit.core.errors import InputError
from optkit.data.base import ImageSet, Listing
from optkit.data.config import DataConfig, class_folders, shares
from optkit.data.files import is_image
from optkit.data.images import identity, is_unread_image, open_rgb, quick_check, read_file


def load(path: str, config: DataConfig) -> Listing:
    """`path/train/<class>/…` with `path/val/<class>/…`, or `path/<class>/…` (or `path/val/<class>/…` alone)."""
    root = Path(path)
    corrupt: list[dict[str, str]] = []
    first, second = shares(root)
    train = _read(first, root, None, corrupt)
    val = _read(second, root, train.class_names, corrupt) if second else None
    return Listing(train=train, val=val, corrupt=corrupt)


def _read(
    folder: Path, root: Path, class_names: tuple[str, ...] | None, corrupt: list[dict[str, str]]
) -> ImageSet:
    """Images of the class folders in `folder`; `class_names` fixes the classes, None takes those found."""
    found = [entry.name for entry in class_folders(folder)]
    if not found:
        raise InputError(
            f"{str(folder)!r} has no class folders.",
            why="Images are expected in one sub-folder per class.",
            hint="Arrange them as photos/<class>/<image>, or give a CSV of path,label.",
        )
    names = class_names or tuple(found)
    if unknown := sorted(set(found) - set(names)):
        raise InputError(
            f"{str(folder)!r} has classes that training lacks: {', '.join(unknown[:5])}.",
            hint="Use the same class folders in both.",
        )
    paths: list[Path] = []
    labels: list[int] = []
    for name in found:
        good = _good_images(folder / name, root, corrupt)
        if not good:
            raise InputError(
                f"The class folder {str(folder / name)!r} is empty.",
                why=_why_empty(folder / name),
                hint="Add images (JPEG, PNG, WebP, …), or remove the folder.",
            )
        paths += good
        labels += [names.index(name)] * len(good)
    return ImageSet(
        class_names=names,
        ids=tuple(path.relative_to(root).as_posix() for path in paths),
        labels=np.array(labels, np.int64),
        open_image=lambda index: open_rgb(paths[index]),
        identities=tuple(identity(names[label], path) for path, label in zip(paths, labels, strict=True)),
        read_image=lambda index: read_file(paths[index]),
    )


def _why_empty(folder: Path) -> str:
    endings = sorted({path.suffix.lower() for path in folder.rglob("*") if path.is_file() and path.suffix})
    other = [ending for ending in endings if not is_image(Path(f"x{ending}"))]
    return "It holds no readable image" + (
        f"; endings that are not read: {', '.join(other[:5])}." if other else "."
    )


def _good_images(folder: Path, root: Path, corrupt: list[dict[str, str]]) -> list[Path]:
    good = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or not (is_image(path) or is_unread_image(path)):
            continue
        reason = quick_check(path) if is_image(path) else f"{path.suffix.lower()} is not read"
        if reason:
            corrupt.append({"file": path.relative_to(root).as_posix(), "reason": reason})
        else:
            good.append(path)
    return good
