"""Batches for training: the same ones, however they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from optkit.core.errors import InputError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import Preprocess
from optkit.data.base import Dataset, ImageSet, Listing
from optkit.data.config import AugmentConfig, DataConfig
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.data.training import TrainingBatch, TrainingData, training_data
from tests.data.pictures import image_set, save_oddities


def training(images: ImageSet, flip: bool = True, **options: object) -> TrainingData:
    settings = {
        "preprocesses": [Preprocess(size=8), Preprocess(size=16)],
        "batch_size": 4,
        "augment": AugmentConfig(min_crop=0.5),
        "seed": 0,
        "workers": 0,
    }
    dataset = Dataset(Listing(images, flip=flip), images, images, whole=None)
    return training_data(dataset, **(settings | options))


def same(first: list[TrainingBatch], second: list[TrainingBatch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.indices, b.indices)
        and torch.equal(a.labels, b.labels)
        and all(map(torch.equal, a.views, b.views))
        for a, b in zip(first, second, strict=True)
    )


def test_epochs_differ_and_repeat() -> None:
    data = training(image_set(10))
    first, again, other = (list(data.epoch(number)) for number in (0, 0, 1))
    assert len(first) == data.steps == 2
    assert first[0].views[0].shape == (4, 3, 8, 8)
    assert first[0].views[1].shape == (4, 3, 16, 16)
    assert first[0].labels.tolist() == (first[0].indices % 2).tolist()
    assert same(first, again)
    assert first[0].indices.tolist() != other[0].indices.tolist()
    assert not same(first, list(training(image_set(10), seed=1).epoch(0)))


def test_loader_processes_change_nothing() -> None:
    augment = AugmentConfig(randaugment=5, erasing=0.5)
    plain, parallel = (
        list(training(image_set(8), augment=augment, workers=workers).epoch(0)) for workers in (0, 1)
    )
    assert same(plain, parallel)


@pytest.mark.parametrize("sampling", ["natural", "balanced"])
def test_an_epoch_goes_on_in_the_middle_without_opening_what_was_before(sampling: str) -> None:
    images, opened = image_set(16), []

    def open_image(index: int, images: ImageSet = images) -> object:
        opened.append(index)
        return images.open_image(index)

    counted = ImageSet(images.class_names, images.ids, images.labels, open_image, images.identities)
    data = training(counted, augment=AugmentConfig(randaugment=5, sampling=sampling))
    whole = list(data.epoch(3))
    opened.clear()
    torch.rand(5)  # what the network draws between does not matter
    assert same(list(data.epoch(3, start=2)), whole[2:])
    assert opened == [index for batch in whole[2:] for index in batch.indices.tolist()]


def test_an_epoch_leaves_the_networks_random_numbers_alone() -> None:
    state = torch.random.get_rng_state()
    list(training(image_set(8), augment=AugmentConfig(randaugment=5, erasing=0.5)).epoch(0))
    assert torch.equal(state, torch.random.get_rng_state())


def test_processes_share_the_batches_of_one() -> None:
    whole = list(training(image_set(10)).epoch(1))
    shares = [list(training(image_set(10), shard=(rank, 2)).epoch(1)) for rank in (0, 1)]
    for batch, *parts in zip(whole, *shares, strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(part.indices, batch.indices[rank::2])
            assert torch.equal(part.views[0], batch.views[0][rank::2])


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be shared evenly by 3"):
        training(image_set(10), shard=(0, 3))
    with pytest.raises(UsageError, match="too few for 4"):
        training(image_set(3), shard=(0, 4))
    few = training(image_set(5), batch_size=8, shard=(1, 2))
    assert (few.batch_size, few.steps) == (4, 1)


def test_views_of_several_models_show_the_same_crop() -> None:
    sizes = [Preprocess(size=16), Preprocess(size=16)]
    batch = next(training(image_set(4), preprocesses=sizes).epoch(0))
    assert torch.equal(batch.views[0], batch.views[1])
    plain = next(training(image_set(4), preprocesses=sizes, augment=AugmentConfig(enabled=False)).epoch(0))
    assert torch.equal(batch.indices, plain.indices)
    assert not torch.equal(plain.views[0], batch.views[0])


def test_without_augmentation_images_look_as_in_evaluation() -> None:
    data = training(image_set(8), augment=AugmentConfig(enabled=False, randaugment=9, erasing=1.0))
    evaluated = next(batches(image_set(8), Preprocess(size=8), 8, SilentReporter())).pixels
    for batch in data.epoch(0):
        assert np.array_equal(batch.views[0].numpy(), evaluated[batch.indices])


def test_balanced_sampling_shows_small_classes_more_often_and_differently() -> None:
    images = image_set(12)
    images.labels[:] = [0] * 10 + [1] * 2
    data = training(images, augment=AugmentConfig(sampling="balanced"))
    shown = list(data.epoch(0))
    labels = np.concatenate([batch.labels for batch in shown])
    assert np.bincount(labels).tolist() == [6, 6]
    index = np.concatenate([batch.indices for batch in shown])
    pixels = np.concatenate([batch.views[0] for batch in shown])
    twice = pixels[index == 10]
    assert len(twice) == 3
    assert not np.array_equal(twice[0], twice[1])


def pixels_of(data: TrainingData, number: int) -> np.ndarray:
    found = list(data.view(number, SilentReporter()))
    assert np.concatenate([batch.indices for batch in found]).tolist() == list(range(10))
    return np.concatenate([batch.pixels for batch in found])


def test_views_for_the_cache() -> None:
    data = training(image_set(10))
    evaluated = next(batches(image_set(10), Preprocess(size=8), 10, SilentReporter())).pixels
    views = [pixels_of(data, number) for number in range(4)]
    assert np.array_equal(views[0], evaluated)
    assert np.array_equal(views[1], evaluated[..., ::-1])
    assert not np.array_equal(views[2], views[3])
    assert np.array_equal(views[2], pixels_of(training(image_set(10)), 2))
    for rank in (0, 1):
        share = list(training(image_set(10), shard=(rank, 2)).view(2, SilentReporter()))
        assert np.concatenate([batch.indices for batch in share]).tolist() == list(range(rank, 10, 2))
        assert np.array_equal(np.concatenate([batch.pixels for batch in share]), views[2][rank::2])


def test_views_where_mirroring_or_augmenting_is_not_allowed() -> None:
    evaluated = next(batches(image_set(10), Preprocess(size=8), 10, SilentReporter())).pixels
    crops = pixels_of(training(image_set(10), flip=False), 1)
    assert not np.array_equal(crops, evaluated[..., ::-1])
    assert not np.array_equal(crops, evaluated)
    assert np.array_equal(
        pixels_of(training(image_set(10), augment=AugmentConfig(enabled=False)), 5), evaluated
    )


def test_corrupt_images_do_not_stop_an_epoch() -> None:
    data = training(image_set(8, corrupt=(3,)))
    assert sum(len(batch.labels) for batch in data.epoch(0)) == 7
    reporter = SilentReporter()
    data.report_skipped(reporter)
    assert reporter.warnings == ["Skipped 1 corrupt images: 3."]
    assert sum(len(batch.labels) for batch in data.view(0, reporter)) == 7
    assert len(reporter.warnings) == 1


def test_training_needs_images_to_validate_on() -> None:
    images = image_set(4)
    dataset = Dataset(Listing(images), images, images.subset(np.array([], int)), images)
    with pytest.raises(InputError, match="no image to validate on"):
        training_data(dataset, [Preprocess(size=8)], 2, AugmentConfig(), 0, 0)


@pytest.mark.filterwarnings("error")
def test_odd_files_are_handled_and_broken_ones_skipped(tmp_path: Path) -> None:
    """Through reading the folder, training and evaluation."""
    for share in ("train/a", "train/b", "val/a", "val/b"):
        good, broken = save_oddities(tmp_path / share)
    reporter = SilentReporter()
    data = load_data(DataConfig(path=str(tmp_path)), reporter)
    training = training_data(data, [Preprocess(size=8)], 2, AugmentConfig(), 0, 0)
    seen = {data.train.ids[index] for batch in training.epoch(0) for index in batch.indices.tolist()}
    measured = {
        data.val.ids[index]
        for batch in batches(data.val, Preprocess(size=8), 4, reporter)
        for index in batch.indices.tolist()
    }
    assert {Path(name).name for name in measured} == good
    assert {Path(name).name for name in seen} == good
    reported = {Path(entry["file"]).name for entry in data.listing.corrupt} | {
        Path(name).name for name in training.skipped
    }
    assert broken <= reported


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_has_all_its_batches_whatever_is_corrupt(workers: int) -> None:
    """Several processes would wait for one that has fewer, and a resume would go on at another place."""
    order = np.concatenate([batch.indices for batch in training(image_set(8), batch_size=2).epoch(0)])
    corrupt = tuple(order[2:6].tolist())
    data = training(image_set(8, corrupt=corrupt), batch_size=2, workers=workers)
    found = list(data.epoch(0))
    assert len(found) == data.steps == 4
    good = sorted(set(range(8)) - set(corrupt))[:2]
    for batch in found[1:3]:
        assert batch.indices.tolist() == good
        assert batch.labels.tolist() == [index % 2 for index in good]
        assert [len(view) for view in batch.views] == [2, 2]
    assert same(list(data.epoch(0, start=2)), found[2:])
    assert data.skipped == {str(index) for index in corrupt}
    for rank in (0, 1):
        share = list(training(image_set(8, corrupt=corrupt), batch_size=2, shard=(rank, 2)).epoch(0))
        assert [len(batch.labels) for batch in share] == [1] * 4
    shown = [batch.indices for batch in data.view(0, SilentReporter())]
    assert sorted(np.concatenate(shown).tolist()) == sorted(set(range(8)) - set(corrupt))


def test_nothing_but_corrupt_images_is_an_error() -> None:
    with pytest.raises(InputError, match="No training image can be decoded"):
        list(training(image_set(8, corrupt=tuple(range(8)))).epoch(0))
