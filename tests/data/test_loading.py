"""Resizing, cropping, normalising, sampling and augmenting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.core.types import Preprocess
from optkit.data.base import CorruptImage, Dataset, ImageSet, Listing
from optkit.data.loading import batches, calibration_subset, normalise, resize_and_crop
from optkit.data.training import Augmentation, TrainingData, training_data


def image_set(count: int = 10, classes: int = 2, corrupt: tuple[int, ...] = ()) -> ImageSet:
    def open_image(index: int) -> Image.Image:
        if index in corrupt:
            raise CorruptImage("broken")
        pixels = np.random.default_rng(index).integers(0, 255, (40, 60, 3), np.uint8)
        return Image.fromarray(pixels)

    labels = np.arange(count) % classes
    ids = tuple(map(str, range(count)))
    return ImageSet(tuple("abcdefgh"[:classes]), ids, labels, open_image, ids)


@pytest.mark.parametrize("size", [(60, 40), (40, 61), (33, 33)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_the_crop_is_torchvisions(size: tuple[int, int], crop_pct: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    ours = resize_and_crop(image, Preprocess(size=28, crop_pct=crop_pct))
    transform = v2.Compose(
        [v2.Resize(int(28 / crop_pct), interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(28)]
    )
    assert np.array_equal(ours, np.asarray(transform(image)))


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


def test_calibration_images_are_drawn_from_every_class() -> None:
    images = image_set(80, 8)
    found = calibration_subset(images, 16, seed=0)
    assert np.bincount(found.labels).tolist() == [2] * 8
    assert calibration_subset(images, 16, seed=0).ids == found.ids
    assert calibration_subset(images, 16, seed=1).ids != found.ids
    assert calibration_subset(images, 1000, seed=0) is images


def training(images: ImageSet, **options: object) -> TrainingData:
    settings = {
        "preprocesses": [Preprocess(size=8), Preprocess(size=16)],
        "augmentation": Augmentation(0.5, True),
        "batch_size": 4,
        "seed": 0,
        "workers": 0,
    }
    return TrainingData(images, **(settings | options))


def test_epochs_differ_and_repeat() -> None:
    data = training(image_set(10))
    first, again, other = (list(data.epoch(number)) for number in (0, 0, 1))
    assert len(first) == data.steps == 2
    assert first[0].views[0].shape == (4, 3, 8, 8)
    assert first[0].views[1].shape == (4, 3, 16, 16)
    assert torch.equal(first[0].views[0], again[0].views[0])
    assert first[0].indices.tolist() != other[0].indices.tolist()


def test_loader_processes_change_nothing() -> None:
    plain, parallel = (list(training(image_set(8), workers=workers).epoch(0)) for workers in (0, 1))
    assert all(torch.equal(a.views[0], b.views[0]) for a, b in zip(plain, parallel, strict=True))


def test_views_show_the_same_crop() -> None:
    sizes = [Preprocess(size=16), Preprocess(size=16)]
    batch = next(training(image_set(4), preprocesses=sizes).epoch(0))
    assert torch.equal(batch.views[0], batch.views[1])
    plain = next(training(image_set(4), preprocesses=sizes, augmentation=None).epoch(0))
    assert not torch.equal(plain.views[0], batch.views[0])


def test_mirroring_only_where_labels_allow_it() -> None:
    image = Image.fromarray(np.tile(np.arange(0, 200, 20, dtype=np.uint8), (10, 1))).convert("RGB")
    rng = np.random.default_rng(0)

    def is_mirrored(flip: bool) -> bool:
        found = np.asarray(Augmentation(1.0, flip)(image, rng))
        return bool(found[0, 0, 0] > found[0, -1, 0])

    assert not any(is_mirrored(flip=False) for _ in range(20))
    assert {is_mirrored(flip=True) for _ in range(20)} == {True, False}


def test_corrupt_images_do_not_stop_an_epoch() -> None:
    data = training(image_set(8, corrupt=(3,)))
    assert sum(len(batch.labels) for batch in data.epoch(0)) == 7
    reporter = SilentReporter()
    data.report_skipped(reporter)
    assert reporter.warnings == ["Skipped 1 corrupt images: 3."]


def test_training_needs_images_to_validate_on() -> None:
    images = image_set(4)
    dataset = Dataset(Listing(images), images, images.subset(np.array([], int)), images)
    with pytest.raises(InputError, match="no image to validate on"):
        training_data(dataset, [Preprocess(size=8)], 2, None, 0, 0)
