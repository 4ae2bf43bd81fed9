"""What every data source yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class ImageSet:
    """Labelled images that are opened one at a time.

    `ids[i]` names image i (a path relative to its root), `labels[i]` is its class index, `open_image(i)`
    decodes it as RGB and raises CorruptImage when that fails.
    """

    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    open_image: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: NDArray[np.int64]) -> ImageSet:
        """The images at `indices`, in that order."""
        chosen = [int(index) for index in indices]
        return ImageSet(
            class_names=self.class_names,
            ids=tuple(self.ids[index] for index in chosen),
            labels=self.labels[indices],
            open_image=lambda i: self.open_image(chosen[i]),
        )


@dataclass(frozen=True)
class Dataset:
    """Training and validation images of one source.

    `native_size` is the input size at which this set is best learnt when the model's own would be waste
    (None: the model's), `flip` whether a mirrored image keeps its label, `corrupt` the files left out with
    the reason, as {"file": …, "reason": …}.
    """

    train: ImageSet
    val: ImageSet
    native_size: int | None = None
    flip: bool = True
    corrupt: list[dict[str, str]] = field(default_factory=list)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names

    def summary(self) -> dict[str, Any]:
        """Counts for manifest and report."""
        return {
            "classes": len(self.class_names),
            "train": len(self.train),
            "val": len(self.val),
            "corrupt": self.corrupt[:100],
            "corrupt_count": len(self.corrupt),
        }


class CorruptImage(Exception):
    """An image that cannot be decoded; `str(error)` is the reason."""
