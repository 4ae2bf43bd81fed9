"""A CSV file with the columns path,label; paths are relative to the file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from optkit.core.errors import InputError
from optkit.data.base import ImageSet, Listing
from optkit.data.config import DataConfig
from optkit.data.images import open_rgb, quick_check


def load(path: str, config: DataConfig) -> Listing:
    """Classes are the distinct labels: in numeric order when all are whole numbers, else alphabetic."""
    file = Path(path)
    rows = _rows(file)
    names = sorted({label for _, label in rows}, key=_numeric if _all_numbers(rows) else str)
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
    images = ImageSet(
        class_names=tuple(names),
        ids=tuple(name for name, _ in good),
        labels=np.array([names.index(label) for _, label in good], np.int64),
        open_image=lambda index: open_rgb(file.parent / good[index][0]),
    )
    return Listing(train=images, corrupt=corrupt)


def _rows(file: Path) -> list[tuple[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise InputError(
                    f"{str(file)!r} lacks the columns path,label.",
                    why=f"Its first line has {reader.fieldnames}.",
                    hint="Write 'path,label' as the first line.",
                )
            rows = [(row["path"] or "", row["label"] or "") for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{str(file)!r} is not a CSV file.", why=str(error), hint="Save it as UTF-8."
        ) from None
    if not rows:
        raise InputError(f"{str(file)!r} lists no image.", hint="Add a line per image.")
    return rows


def _all_numbers(rows: list[tuple[str, str]]) -> bool:
    return all(label.isdecimal() for _, label in rows)


def _numeric(label: str) -> int:
    return int(label)
