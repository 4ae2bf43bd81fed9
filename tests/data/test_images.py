"""Image files of every kind become upright 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from optkit.data.base import CorruptImage
from optkit.data.images import open_rgb, quick_check


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_kinds_of_pixels(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((8, 8), 128, np.uint8))
    assert open_rgb(save(tmp_path / "grey.png", grey)).getpixel((0, 0)) == (128, 128, 128)
    deep = Image.fromarray(np.full((8, 8), 32896, np.uint16))
    assert open_rgb(save(tmp_path / "deep.png", deep)).getpixel((0, 0)) == (128, 128, 128)
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = open_rgb(save(tmp_path / "cmyk.jpg", cmyk)).getpixel((0, 0))
    assert red[0] > 200
    assert max(red[1:]) < 60
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "two.gif", frames[0], save_all=True, append_images=frames[1:])
    assert open_rgb(path).getpixel((0, 0)) == (255, 0, 0)


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert open_rgb(save(tmp_path / "turned.jpg", image, exif=exif)).size == (4, 8)


def test_a_bomb_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "large.png", Image.new("RGB", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(CorruptImage, match="too many pixels"):
        open_rgb(path)
    assert quick_check(path) == "too many pixels"


def test_a_good_image_passes_the_quick_check(tmp_path: Path) -> None:
    assert quick_check(save(tmp_path / "good.jpg", Image.new("RGB", (50, 50)))) is None
