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


def grey_of(path: Path, pixels: np.ndarray) -> list[int]:
    rgb = open_rgb(save(path, Image.fromarray(pixels)))
    return np.asarray(rgb)[0, :, 0].tolist()


def test_deep_grey_is_scaled_by_its_kind_not_its_content(tmp_path: Path) -> None:
    assert grey_of(tmp_path / "dark.png", np.array([[0, 200, 2570]], np.uint16)) == [0, 1, 10]
    assert grey_of(tmp_path / "long.tif", np.array([[-5, 200, 65535]], np.int32)) == [0, 1, 255]
    assert grey_of(tmp_path / "longer.tif", np.array([[0, 100_000, 200_000]], np.int32)) == [0, 128, 255]
    assert grey_of(tmp_path / "unit.tif", np.array([[0, 0.5, np.nan]], np.float32)) == [0, 128, 0]
    assert grey_of(tmp_path / "bytes.tif", np.array([[0, 10, 200]], np.float32)) == [0, 10, 200]


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert open_rgb(save(tmp_path / "clear.png", image)).getpixel((0, 0)) == (255, 255, 255)
    image = Image.new("LA", (4, 4), (0, 255))
    assert open_rgb(save(tmp_path / "solid.png", image)).getpixel((0, 0)) == (0, 0, 0)
    image = Image.new("P", (4, 4))
    assert open_rgb(save(tmp_path / "index.gif", image, transparency=0)).getpixel((0, 0)) == (255, 255, 255)
