from __future__ import annotations

import numpy as np
from PIL import Image

from optkit.stages.explain.draw import draw


def test_the_photo_and_its_map_side_by_side(tmp_path):
    photo = np.full((32, 32, 3), (10, 200, 10), np.uint8)
    values = np.zeros((32, 32), np.float32)
    values[:16, :16] = 1e-3  # faint maps are shown in full colours
    draw([photo, photo], [values, values.T], tmp_path / "maps" / "00.png")
    with Image.open(tmp_path / "maps" / "00.png") as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (3 * 224 + 2 * 4, 224), "RGB")
        assert picture.getpixel((50, 50)) == (10, 200, 10)
        high, low = picture.getpixel((228 + 50, 50)), picture.getpixel((228 + 150, 150))
        assert picture.getpixel((226, 100)) == (255, 255, 255)
    assert high[0] > 100 > high[2]  # red
    assert low[2] > 100 > low[0]  # blue


def test_a_flat_map_is_drawn(tmp_path):
    photo = np.full((32, 32, 3), 100, np.uint8)
    draw([photo], [np.zeros((32, 32), np.float32)], tmp_path / "maps" / "00.png")
    with Image.open(tmp_path / "maps" / "00.png") as picture:
        assert picture.size == (452, 224)
