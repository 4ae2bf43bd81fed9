"""The folder that `optkit run` shows a run in: what it is called, and whose it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.core.errors import UsageError

if TYPE_CHECKING:
    from optkit.pipeline import Plan

MARKER = ".optkit-run"  # in every folder that `optkit run` made: which sub-folders are its own


def folder_names(steps: list[str]) -> dict[str, str]:
    """A folder for every step; a file that was named directly gets its stem, numbered where it is taken."""
    names: dict[str, str] = {}
    for step in steps:
        base = Path(step).stem if "/" in step or "." in step else step
        taken = {*names.values(), *steps} - {step}
        names[step] = next(name for name in _numbered(base) if name not in taken)
    return names


def _numbered(base: str) -> Iterator[str]:
    yield base
    yield from (f"{base}-{number}" for number in count(2))


def prepare(folder: Path, plan: Plan, names: dict[str, str]) -> None:
    """Mark the folder as a run, keep the recipe in it, and drop steps of an older run; the store has them."""
    from optkit.core.store import write_atomically
    from optkit.recipe import recipe_to_yaml

    marker = folder / MARKER
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not marker.is_file())):
        raise UsageError(
            f"{str(folder)!r} exists and is not a run.",
            why="A run would replace what is in it.",
            hint="Give a folder of its own with --out.",
        )
    old = json.loads(marker.read_text())["folders"] if marker.is_file() else []
    for name in set(old) - set(names.values()):
        shutil.rmtree(folder / Path(name).name, ignore_errors=True)
    write_atomically(marker, json.dumps({"folders": sorted(names.values())}))
    write_atomically(folder / "recipe.yaml", recipe_to_yaml(plan.recipe))
