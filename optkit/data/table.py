"""Reading a CSV of path,label, and the order of classes; light, as the fingerprint of a config needs it too."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from optkit.core.errors import InputError


def read_table(file: Path) -> list[tuple[str, str]]:
    """The (path, label) rows of `file`; InputError for anything else."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise InputError(
                    f"{str(file)!r} lacks the columns path,label.",
                    why=f"Its first line has {reader.fieldnames}.",
                    hint="Write 'path,label' as the first line.",
                )
            rows = []
            for row in reader:
                name, label = ((row[column] or "").strip() for column in ("path", "label"))
                if not name or not label:
                    raise InputError(
                        f"{str(file)!r} has no {'label' if name else 'path'} in line {reader.line_num}.",
                        hint="Every line needs a path and a label.",
                    )
                rows.append((name, label))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{str(file)!r} is not a CSV file.", why=str(error), hint="Save it as UTF-8."
        ) from None
    if not rows:
        raise InputError(f"{str(file)!r} lists no image.", hint="Add a line per image.")
    return rows


def class_order(labels: Iterable[str]) -> list[str]:
    """The distinct labels: in numeric order when all are whole numbers, else alphabetic."""
    distinct = set(labels)
    if all(label.isdecimal() for label in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)
