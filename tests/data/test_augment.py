"""Crops, RandAugment, erasing and the order of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from optkit.core.errors import UsageError
from optkit.core.types import Preprocess
from optkit.data.augment import CHANCES, Augmentation, Crop, balanced_order, natural_order
from optkit.data.config import AugmentConfig
from tests.data.pictures import encoded_set, image_set, jpeg, photo

SIZE = Preprocess(size=24)


def chances(count: int = 200) -> np.ndarray:
    return np.random.default_rng(0).random((count, CHANCES))


def augmentation(flip: bool = True, **options: object) -> Augmentation:
    return Augmentation(AugmentConfig(**options), flip)


@pytest.mark.parametrize("min_crop", [0.05, 0.6, 1.0])
def test_a_crop_lies_in_the_image_and_is_no_smaller_than_asked(min_crop: float) -> None:
    crops = [augmentation(min_crop=min_crop).crop(row) for row in chances()]
    for crop in crops:
        assert crop.left >= 0
        assert crop.left + crop.width <= 1 + 1e-9
        assert crop.top >= 0
        assert crop.top + crop.height <= 1 + 1e-9
    areas = [crop.width * crop.height for crop in crops]
    assert min(areas) >= min_crop - 1e-9
    assert np.mean(areas) == pytest.approx((1 + min_crop) / 2, abs=0.1)


def test_a_crop_is_cut_where_it_says() -> None:
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[5:, 10:] = 1
    assert Crop(0.5, 0.5, 0.5, 0.5, False).cut(pixels).shape == (5, 10, 3)
    assert Crop(0.5, 0.5, 0.5, 0.5, False).cut(pixels).all()
    assert Crop(0.999, 0.999, 0.001, 0.001, False).cut(pixels[:, :3]).shape[2] == 3


def test_mirroring_only_where_labels_allow_it() -> None:
    image = Image.fromarray(np.tile(np.arange(0, 200, 20, dtype=np.uint8), (10, 1))).convert("RGB")
    images = encoded_set([jpeg(image)])

    def is_mirrored(flip: bool, row: np.ndarray) -> bool:
        (found,) = augmentation(flip, min_crop=1.0)(images, 0, [SIZE], row)
        return bool(found[0, 0, 0] > found[0, -1, 0])

    assert not any(is_mirrored(False, row) for row in chances(20))
    assert {is_mirrored(True, row) for row in chances(20)} == {True, False}


def test_a_small_crop_of_a_large_jpeg_is_still_sharp() -> None:
    """The file is decoded no smaller than the crop, not the image, needs."""
    images = encoded_set([jpeg(photo(800, 608))])
    vary = augmentation(False, min_crop=0.05)
    for row in chances(10):
        if max(vary.crop(row).width, vary.crop(row).height) > 0.9:
            continue  # nearly all: decoded at an eighth
        (found,) = vary(images, 0, [Preprocess(size=64)], row)
        cut = Image.fromarray(vary.crop(row).cut(np.asarray(images.open_image(0))))
        exact = np.asarray(cut.resize((64, 64), Image.Resampling.BICUBIC), int)
        assert np.abs(found.astype(int) - exact).mean() < 1.5


@pytest.mark.parametrize("option", [{"randaugment": 9}, {"erasing": 1.0}])
def test_distortions_change_the_pixels_and_repeat(option: dict[str, object]) -> None:
    images = image_set(8)
    state = torch.random.get_rng_state()
    for index, row in enumerate(chances(8)):
        (plain,) = augmentation()(images, index, [SIZE], row)
        first, again = (augmentation(**option)(images, index, [SIZE], row)[0] for _ in range(2))
        assert np.array_equal(first, again)
        assert first.shape == plain.shape
        if "erasing" in option:
            assert not np.array_equal(first, plain)
    assert torch.equal(state, torch.random.get_rng_state())
    varied = [augmentation(**option)(images, 0, [SIZE], row)[0] for row in chances(8)]
    usual = [augmentation()(images, 0, [SIZE], row)[0] for row in chances(8)]
    assert sum(not np.array_equal(a, b) for a, b in zip(varied, usual, strict=True)) >= 4


def test_erasing_fills_with_the_mean() -> None:
    images = encoded_set([jpeg(Image.new("RGB", (40, 40), "black"))])
    (found,) = augmentation(erasing=1.0)(images, 0, [SIZE], chances()[0])
    assert {tuple(pixel) for pixel in found.reshape(-1, 3).tolist()} == {(0, 0, 0), (124, 116, 104)}


def test_models_of_different_sizes_see_the_same_distortions() -> None:
    images = encoded_set([jpeg(photo(80, 80))])
    large, small = Preprocess(size=48), Preprocess(size=24)
    for row in chances(6):
        first, second = augmentation(randaugment=9, erasing=0.5)(images, 0, [large, small], row)
        shrunk = np.asarray(
            Image.fromarray(np.ascontiguousarray(first)).resize((24, 24), Image.Resampling.BICUBIC)
        )
        assert np.abs(shrunk.astype(int) - second).mean() < 2


def test_a_balanced_epoch_draws_every_class_equally_often() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2])
    rng = np.random.default_rng(0)
    order = balanced_order(labels, rng)
    assert len(order) == 100
    assert sorted(np.bincount(labels[order]).tolist()) == [33, 33, 34]
    assert len(set(order[labels[order] == 0].tolist())) >= 33  # none twice where there are enough
    assert set(order[labels[order] == 1].tolist()) == set(range(90, 99))
    assert np.bincount(natural_order(labels, rng)).tolist() == [1] * 100


@pytest.mark.parametrize("option", [{"randaugment": 9}, {"erasing": 0.5}])
def test_what_is_asked_for_is_not_turned_off(option: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(option))) as caught:
        AugmentConfig(enabled=False, **option).check()
    assert next(iter(option)) in caught.value.hint
    AugmentConfig(**option).check()
    AugmentConfig(enabled=False).check()
