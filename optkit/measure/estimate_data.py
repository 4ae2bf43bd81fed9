"""The published throughputs that estimates are calibrated on, and the networks that they were measured on.

The throughputs are facts from the results/ folder of timm (github.com/huggingface/pytorch-image-models): images per
second of whole networks in PyTorch, at batches of up to 1,024. The features were counted by `features` from the
same networks. `benchmarks/estimate.py --collect` makes the file anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ROWS = "rows.npz"


@dataclass(frozen=True)
class Networks:
    """Networks and their features: `values` is (networks, features), columns in the order of `features`."""

    names: NDArray[np.str_]
    sizes: NDArray[np.int64]
    families: NDArray[np.str_]
    features: tuple[str, ...]
    values: Array

    def column(self, feature: str) -> Array:
        """One feature of every network."""
        column: Array = self.values[:, self.features.index(feature)]
        return column

    def take(self, places: NDArray[np.int64]) -> Networks:
        """Some of the networks, in that order."""
        return Networks(
            self.names[places], self.sizes[places], self.families[places], self.features, self.values[places]
        )


@dataclass(frozen=True)
class Measured:
    """The rows of one file: networks, the milliseconds of one image, and the batch they were measured at."""

    networks: Networks
    ms: Array
    batch: NDArray[np.int64]

    def usual_batch(self) -> int:
        """The batch of most rows."""
        values, counts = np.unique(self.batch, return_counts=True)
        return int(values[counts.argmax()])


def measured(setup: str) -> Measured:
    """The rows of the file `setup`, a key of SETUPS."""
    networks, arrays = _load()
    places = arrays[f"{setup}/place"].astype(np.int64)
    return Measured(
        networks.take(places), 1000 / arrays[f"{setup}/images_per_s"].astype(float), arrays[f"{setup}/batch"]
    )


def save(path: Path, networks: Networks, rows: dict[str, tuple[list[int], list[float], list[int]]]) -> None:
    """Write the file: of every setup the places of its networks, images per second, and batches."""
    arrays = {
        "names": networks.names,
        "sizes": networks.sizes.astype(np.int32),
        "families": networks.families,
        "features": np.array(networks.features),
        "values": networks.values.astype(np.float32),
    }
    for setup, (places, images_per_s, batches) in rows.items():
        arrays[f"{setup}/place"] = np.array(places, np.int16)
        arrays[f"{setup}/images_per_s"] = np.array(images_per_s, np.float32)
        arrays[f"{setup}/batch"] = np.array(batches, np.int16)
    np.savez_compressed(path, allow_pickle=False, **arrays)


@cache
def _load() -> tuple[Networks, dict[str, NDArray]]:
    with (
        files("optkit.measure").joinpath("estimates", ROWS).open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        arrays = dict(archive)
    networks = Networks(
        arrays["names"],
        arrays["sizes"].astype(np.int64),
        arrays["families"],
        tuple(arrays["features"].tolist()),
        arrays["values"].astype(float),
    )
    return networks, arrays
