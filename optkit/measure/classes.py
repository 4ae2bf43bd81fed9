"""Which class of a model a data set's class is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError, closest


@dataclass(frozen=True)
class ClassMapping:
    """`classes[i]` is the model's index of the data's class i; `by` says how they were matched."""

    classes: NDArray[np.int64]
    by: Literal["name", "index", "order"]


def map_classes(data: Sequence[str], model: Sequence[str]) -> ClassMapping:
    """Match the classes of a data set with a model's: by name, which allows another order or a subset.

    Where the data's names are plain numbers they are the model's class indices; where the model's are, and
    the counts are equal, the order decides. InputError naming both sides otherwise.
    """
    positions = {name: index for index, name in enumerate(model)}
    unknown = [name for name in data if name not in positions]
    if not unknown:
        return ClassMapping(np.array([positions[name] for name in data]), "name")
    if all(name.isdecimal() and int(name) < len(model) for name in data):
        return ClassMapping(np.array([int(name) for name in data]), "index")
    if _is_numbered(model) and len(data) == len(model):
        return ClassMapping(np.arange(len(data)), "order")
    if len(data) != len(model):
        message = f"The data has {len(data)} classes, the model {len(model)}, and their names do not match."
    else:
        message = "The classes of the data are not those of the model."
    raise InputError(
        message,
        why=f"The model has no class {unknown[0]!r}. Data: {_shorten(data)}; model: {_shorten(model)}.",
        hint=f"{closest(unknown[0], model)} Rename the class folders, or evaluate on data of these classes."
        if len(model) <= 20
        else "Rename the class folders to the model's class names, or to its class indices.",
    )


def _is_numbered(names: Sequence[str]) -> bool:
    return all(name == str(index) for index, name in enumerate(names))


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", … ({len(names)})" if len(names) > 5 else "")
