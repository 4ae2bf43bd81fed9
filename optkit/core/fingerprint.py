"""Digests of values, files and folders: what cache keys are made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1]
SERVICES = ("core", "data", "models", "train", "graph", "runtimes", "measure")


def of_value(value: Any) -> str:
    """Digest of anything JSON can hold; independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # File names that are not UTF-8 hold surrogates.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_tree(root: Path) -> str:
    """Digest of a folder's listing: relative path, size and modification time of every file not hidden.

    Contents are not read, so a folder of a million photos costs seconds; a file that is changed without
    changing size and time goes unnoticed, as it does with make and rsync.
    """
    names = (path.relative_to(root) for path in sorted(root.rglob("*")))
    return of_files(
        root, [name.as_posix() for name in names if not any(part[0] == "." for part in name.parts)]
    )


def of_files(root: Path, names: Iterable[str]) -> str:
    """Digest of name, size and modification time of the files `names`, relative to `root`; absent ones do not count."""
    rows = []
    for name in names:
        if (path := root / name).is_file():
            stat = path.stat()
            rows.append([name, stat.st_size, stat.st_mtime_ns])
    return of_value(rows)


def of_path(path: Path) -> str:
    """Digest of a file's content or a folder's listing; InputError when there is neither."""
    if path.is_dir():
        return of_tree(path)
    if path.is_file():
        return of_file(path)
    raise InputError(f"There is no file or folder {str(path)!r}.", hint="Check the path.")


@cache
def of_code(stage: str) -> str:
    """Digest of the code that a stage runs: its own folder, what stages share, and every room below it."""
    folders = ["stages/" + stage, *SERVICES]
    shared = PACKAGE / "stages" / "base.py"
    return of_value(
        [*chain(*map(_of_modules, folders)), [shared.relative_to(PACKAGE).as_posix(), of_file(shared)]]
    )


@cache
def _of_modules(folder: str) -> list[list[str]]:
    """Path and digest of every module in a folder of the package."""
    files = sorted((PACKAGE / folder).rglob("*.py"))
    return [[path.relative_to(PACKAGE).as_posix(), of_file(path)] for path in files]
