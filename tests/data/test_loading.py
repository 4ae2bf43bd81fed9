"""Resizing, cropping and normalising."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from optkit.core.progress import SilentReporter
from optkit.core.types import Preprocess
from optkit.data.augment import mirror
from optkit.data.base import CorruptImage
from optkit.data.loading import (
    Resize,
    batches,
    normalise,
    read_input,
    read_pixels,
    resize,
    resize_and_crop,
    resize_few,
)
from tests.data.pictures import encoded_set, image_set, jpeg, photo, png_noise


@pytest.mark.parametrize("size", [(60, 40), (40, 61), (33, 33)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_the_crop_is_torchvisions(size: tuple[int, int], crop_pct: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    ours = resize_and_crop(image, Preprocess(size=28, crop_pct=crop_pct))
    transform = v2.Compose(
        [v2.Resize(int(28 / crop_pct), interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(28)]
    )
    levels = np.abs(ours.astype(int) - np.asarray(transform(image)))
    assert levels.mean() < 0.1
    assert levels.max() <= 8  # a clipped overshoot is rounded elsewhere; pure noise has many


@pytest.mark.parametrize("quick", [resize, resize_few])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("sides", [(20, 30), (90, 70)])
def test_resizing_is_pillows(quick: Resize, interpolation: str, sides: tuple[int, int]) -> None:
    image = photo(60, 40)
    exact = image.resize(sides[::-1], Image.Resampling[interpolation.upper()])
    levels = np.abs(quick(np.asarray(image).copy(), sides, interpolation).astype(int) - np.asarray(exact))
    assert levels.max() <= (0 if interpolation == "nearest" else 2)
    assert levels.mean() < 0.1


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("size", [(60, 40), (900, 700), (224, 224)])
def test_calibration_sees_what_evaluation_sees(size: tuple[int, int], crop_mode: str) -> None:
    """With Pillow instead of torch, to within rounding; noise in PNG is resized from its full size."""
    images = encoded_set([jpeg(photo(*size)), jpeg(photo(*size, seed=1)), png_noise(*size)])
    preprocess, reporter = Preprocess(size=96, std=(1, 1, 1), crop_mode=crop_mode), SilentReporter()
    (torchs,), (pillows,) = (
        list(batches(images, preprocess, 3, reporter, one)) for one in (resize, resize_few)
    )
    levels = 255 * np.abs(torchs.pixels - pillows.pixels)
    assert levels.mean(axis=(1, 2, 3)).max() < 0.1
    assert levels.max() < 4


def test_mirror() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(mirror(pixels), pixels[:, ::-1])


def test_a_large_jpeg_is_decoded_small_and_looks_the_same() -> None:
    images = encoded_set([jpeg(photo(1600, 1200))])
    assert read_pixels(images, 0).shape == (1200, 1600, 3)
    assert read_pixels(images, 0, 300).shape == (300, 400, 3)
    for preprocess in (Preprocess(size=96, crop_pct=0.875), Preprocess(size=96, crop_mode="squash")):
        exact = resize_and_crop(images.open_image(0), preprocess)
        levels = np.abs(read_input(images, 0, preprocess).astype(int) - exact)
        assert levels.mean() < 0.5


def test_what_a_set_says_of_a_corrupt_image_counts() -> None:
    with pytest.raises(CorruptImage):
        read_pixels(encoded_set([jpeg(photo(20, 20))[:200]]), 0, 8)
    images = encoded_set([jpeg(photo(20, 20))[:200]], opened=photo(9, 9))
    assert read_pixels(images, 0, 8).shape == (9, 9, 3)


def test_squash_keeps_the_whole_image() -> None:
    image = Image.new("RGB", (60, 20), "black")
    image.paste("white", (0, 0, 5, 20))
    found = resize_and_crop(image, Preprocess(size=12, crop_mode="squash", crop_pct=0.5))
    assert found.shape == (12, 12, 3)
    assert found[:, 0].min() > 128


def test_normalise() -> None:
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    pixels[..., 0] = 255
    found = normalise(pixels, Preprocess(size=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5)))
    assert found.shape == (1, 3, 2, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, :, 0, 0], [1, -2, -1], rtol=1e-6)


def test_batches_leave_corrupt_images_out() -> None:
    reporter = SilentReporter()
    found = list(batches(image_set(5, corrupt=(1, 4)), Preprocess(size=8), 2, reporter))
    assert [batch.indices.tolist() for batch in found] == [[0], [2, 3]]
    assert found[1].pixels.shape == (2, 3, 8, 8)
    assert found[1].labels.tolist() == [0, 1]
    assert len(reporter.warnings) == 2
