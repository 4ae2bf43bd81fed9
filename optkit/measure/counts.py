"""What is counted of a network: the work, the parameters and the memory traffic of its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from optkit.measure.formula import LayerShape

UNIT = "multiply-accumulates (MACs) of convolutions and matrix products, batch 1; one MAC is two FLOPs"
ACTIVATIONS = "elements that the counted layers write, batch 1"
TRAFFIC = "weights, inputs and outputs of the counted layers, each moved once, as the file stores them"
# What no type of layer stands for, so that `Cost.not_counted` cannot name it.
NEVER_COUNTED = "sums and products of single elements (shortcuts, the scaling by squeeze-and-excitation)"


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product, for one image. `precision` is that of its two operands in the file.

    Weights are read once for any batch; `activation_bytes` are its input and its output for one image.
    """

    name: str
    type: str
    macs: int
    params: int
    activations: int
    weight_bytes: int
    activation_bytes: int
    precision: str

    def bytes_at(self, batch: int) -> int:
        """What it moves for a batch."""
        return self.weight_bytes + batch * self.activation_bytes

    def row(self) -> dict[str, Any]:
        """As JSON, with the bytes and MACs per byte of batch 1."""
        moved = self.bytes_at(1)
        return {**asdict(self), "bytes": moved, "macs_per_byte": self.macs / moved if moved else None}


@dataclass(frozen=True)
class Cost:
    """`layers` in the order of execution; `shapes` are theirs by name, where the formulas apply.

    `activations` are the elements that convolutions and matrix products write, as fvcore and timm count them.
    The totals hold products outside of layers, as a module's attention, too. `not_counted` says which operations
    are not in this count ({"Sigmoid": 49}); `unknown` names those that should be and whose shapes could not be
    found, so that every total but `params` is a lower bound when it is not empty.
    """

    macs: int
    params: int
    activations: int
    weight_bytes: int
    activation_bytes: int
    layers: list[Layer]
    not_counted: dict[str, int]
    shapes: dict[str, LayerShape]
    unknown: list[str] = field(default_factory=list)

    def metrics(self) -> dict[str, int]:
        """What no format of numbers changes."""
        return {"macs": self.macs, "params": self.params, "activations": self.activations}

    def bytes_at(self, batch: int) -> int:
        """What the counted layers move for a batch: weights once, inputs and outputs for every image."""
        return self.weight_bytes + batch * self.activation_bytes


def tally(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first."""
    return dict(Counter(names).most_common())
