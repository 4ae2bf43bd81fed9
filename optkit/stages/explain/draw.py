"""Photo and maps side by side, as a PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PANEL_PX = 224
GAP_PX = 4
STRENGTH = 0.55  # of the colours over the photo
# From no evidence to all of it: blue, cyan, yellow, red.
COLOURS = np.array([(20, 20, 140), (0, 170, 220), (250, 230, 60), (220, 20, 20)], np.float64)


def draw(photos: list[NDArray[np.uint8]], maps: list[NDArray[np.float32]], path: Path) -> None:
    """The first photo (size, size, 3), then each photo under its map (size, size), as the models saw them."""
    panels = [_panel(photos[0]), *(_panel(_overlay(*pair)) for pair in zip(photos, maps, strict=True))]
    width = len(panels) * (PANEL_PX + GAP_PX) - GAP_PX
    canvas = Image.new("RGB", (width, PANEL_PX), "white")
    for place, panel in enumerate(panels):
        canvas.paste(panel, (place * (PANEL_PX + GAP_PX), 0))
    path.parent.mkdir(exist_ok=True)
    canvas.save(path)


def _panel(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).resize((PANEL_PX, PANEL_PX), Image.Resampling.BICUBIC)


def _overlay(photo: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The photo in grey under the map's colours; the map's maximum gets the last colour."""
    share = values / max(float(values.max()), np.finfo(np.float32).tiny)
    stops = np.linspace(0, 1, len(COLOURS))
    colours = np.stack([np.interp(share, stops, channel) for channel in COLOURS.T], axis=-1)
    grey = photo.mean(axis=2, keepdims=True)
    blended: NDArray[np.uint8] = (STRENGTH * colours + (1 - STRENGTH) * grey).round().astype(np.uint8)
    return blended
