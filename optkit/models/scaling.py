"""Compound scaling: EfficientNets of any depth, width and input size, as names that rebuild themselves.

Tan and Le, EfficientNet, arXiv 1905.11946, section 3.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import timm
from timm.models._efficientnet_builder import BN_EPS_TF_DEFAULT
from timm.models.efficientnet import _gen_efficientnet, _gen_efficientnet_lite
from torch import nn

from optkit.core.errors import UsageError
from optkit.core.types import Preprocess
from optkit.models.names import timm_name

# Width and depth of B0…B7 as multiples of B0's, and of Lite0…Lite4 as multiples of Lite0's.
FAMILY = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1))
MAX_MULTIPLIER = 20.0
SIZES = (16, Preprocess.model_fields["size"].metadata[-1].le)  # pixels
SIZE_STEP = 4  # of which the paper's sizes, 224 … 600, are multiples
PIECES = re.compile(r"(?P<base>\w+)-d(?P<depth>\d+(\.\d+)?)-w(?P<width>\d+(\.\d+)?)-r(?P<size>\d+)", re.ASCII)
BASE = re.compile(r"(?P<tf>tf_)?efficientnet_(?P<family>b|lite)(?P<number>[0-7])", re.ASCII)
EXAMPLE = "b0-d1.20-w1.10-r256"


@dataclass(frozen=True)
class ScaledArch:
    """`base` with `depth` times its layers, `width` times its channels, and images of `size` pixels."""

    base: str
    depth: float
    width: float
    size: int

    @property
    def name(self) -> str:
        """The architecture's name, from which `parse_scaled` reads it again."""
        return f"{self.base}-d{self.depth:.2f}-w{self.width:.2f}-r{self.size}"

    def beyond(self) -> str:
        """Which limit its depth, width or size passes; empty when it passes none."""
        if not all(0 < multiplier <= MAX_MULTIPLIER for multiplier in (self.depth, self.width)):
            return f"Depth and width are above 0 and at most {MAX_MULTIPLIER:g}."
        if not SIZES[0] <= self.size <= SIZES[1]:
            return f"Sizes go from {SIZES[0]} to {SIZES[1]} pixels."
        return ""


@dataclass(frozen=True)
class Coefficients:
    """How much depth (α), width (β) and resolution (γ) grow with each unit of φ; the paper's by default."""

    alpha: float = 1.2
    beta: float = 1.1
    gamma: float = 1.15

    @property
    def growth(self) -> float:
        """By what the paper predicts the FLOPs to grow with each unit of φ: α·β²·γ² (equation 3)."""
        return self.alpha * self.beta**2 * self.gamma**2

    def scaled(self, base: str, size: int, phi: float) -> ScaledArch:
        """`base`, of `size` pixels, with depth α^φ, width β^φ and resolution γ^φ (equation 3)."""
        pixels = SIZE_STEP * round(size * self.gamma**phi / SIZE_STEP)
        return ScaledArch(base, round(self.alpha**phi, 2), round(self.beta**phi, 2), pixels)


def parse_scaled(arch: str) -> ScaledArch | None:
    """What the name of a scaled network says, None for any other name; UsageError for a malformed one."""
    if "-" not in arch:  # which no name of timm's has
        return None
    match = PIECES.fullmatch(arch)
    if match is None:
        raise _malformed(arch, "It is not of the form BASE-dDEPTH-wWIDTH-rSIZE.")
    found = ScaledArch(match["base"], float(match["depth"]), float(match["width"]), int(match["size"]))
    check_base(found.base)
    if why := found.beyond():
        raise _malformed(arch, why)
    return found


def _malformed(arch: str, why: str) -> UsageError:
    return UsageError(
        f"{arch!r} is not the name of a scaled network.",
        why=why,
        hint=f"Write it like {EXAMPLE}; `optkit scale` prints such names.",
    )


def check_base(base: str) -> None:
    """UsageError for an architecture that is no EfficientNet B or Lite."""
    if BASE.fullmatch(timm_name(base)) is None or not timm.is_model(timm_name(base)):
        raise UsageError(
            f"{base!r} cannot be scaled.",
            why="Compound scaling is defined for EfficientNet's blocks.",
            hint="Start from b0…b7, lite0…lite4, or timm's full name of one of them.",
        )


def create(arch: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    """The module of a scaled network, or timm's of any other, with random weights.

    `options` are further arguments of timm's. A scaled network's channels are rounded once, from those of its
    family's smallest.
    """
    scaled = parse_scaled(arch)
    if scaled is None:
        module: nn.Module = timm.create_model(timm_name(arch), num_classes=num_classes, **options)
        return module
    match = BASE.fullmatch(timm_name(scaled.base))
    if match is None:
        raise ValueError(f"{scaled.base!r} was not checked")
    width, depth = FAMILY[int(match["number"])]
    generate = _gen_efficientnet_lite if match["family"] == "lite" else _gen_efficientnet
    padding = {"pad_type": "same", "bn_eps": BN_EPS_TF_DEFAULT} if match["tf"] else {}
    scaled_module: nn.Module = generate(
        timm_name(scaled.base),
        channel_multiplier=width * scaled.width,
        depth_multiplier=depth * scaled.depth,
        num_classes=num_classes,
        **padding,
        **options,
    )
    return scaled_module
