"""Shuffled, augmented batches for training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from optkit.core.errors import InputError
from optkit.core.progress import Reporter
from optkit.core.types import Preprocess
from optkit.data.base import CorruptImage, Dataset, ImageSet
from optkit.data.loading import RESAMPLING, normalise, resize_and_crop

Sample = tuple[list[NDArray[np.uint8]], int, int]


@dataclass(frozen=True)
class TrainingBatch:
    """`views[i]` is the batch as the i-th model wants it, float32 (n, 3, size_i, size_i)."""

    views: list[torch.Tensor]
    labels: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crops of at least `min_area` of the image, mirrored half of the time when `flip`."""

    min_area: float
    flip: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        area = rng.uniform(self.min_area, 1) * image.width * image.height
        aspect = np.exp(rng.uniform(np.log(4 / 5), np.log(5 / 4))) * image.width / image.height
        width = min(image.width, max(1, round((area * aspect) ** 0.5)))
        height = min(image.height, max(1, round((area / aspect) ** 0.5)))
        left = rng.integers(0, image.width - width + 1)
        top = rng.integers(0, image.height - height + 1)
        cropped = image.crop((int(left), int(top), int(left) + width, int(top) + height))
        if self.flip and rng.random() < 0.5:
            return cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return cropped


class TrainingData:
    """Batches of `images`, epoch by epoch, each image as every one of `preprocesses` wants it.

    All views of an image show the same random crop, so that a student can learn what a teacher says of it at
    another size. Randomness depends on (seed, epoch, image) alone, not on workers or history.
    """

    def __init__(
        self,
        images: ImageSet,
        preprocesses: list[Preprocess],
        augmentation: Augmentation | None,
        batch_size: int,
        seed: int,
        workers: int,
    ) -> None:
        self._images, self._preprocesses = images, preprocesses
        self._augmentation, self._seed, self._workers = augmentation, seed, workers
        self.batch_size = min(batch_size, len(images))
        self.skipped: set[str] = set()

    @property
    def steps(self) -> int:
        """Batches in an epoch; a smaller last batch is left out, as batch normalisation suffers from it."""
        return len(self._images) // self.batch_size

    def epoch(self, number: int) -> Iterator[TrainingBatch]:
        """The batches of epoch `number`, in that epoch's own random order."""
        order = np.random.default_rng([self._seed, number]).permutation(len(self._images))
        loader = DataLoader(
            _EpochSamples(self._images, self._preprocesses, self._augmentation, (self._seed, number)),
            sampler=order.tolist(),
            batch_size=self.batch_size,
            drop_last=True,
            num_workers=self._workers,
            collate_fn=list,
        )
        for samples in loader:
            good = [sample for sample in samples if not isinstance(sample, int)]
            self.skipped.update(self._images.ids[sample] for sample in samples if isinstance(sample, int))
            if good:
                yield self._batch(good)

    def report_skipped(self, reporter: Reporter) -> None:
        """Warn of the images that turned out corrupt on the way."""
        if self.skipped:
            reporter.warn(
                f"Skipped {len(self.skipped)} corrupt images: {', '.join(sorted(self.skipped)[:5])}."
            )

    def _batch(self, samples: list[Sample]) -> TrainingBatch:
        views = [
            torch.from_numpy(normalise(np.stack([sample[0][i] for sample in samples]), preprocess))
            for i, preprocess in enumerate(self._preprocesses)
        ]
        labels, indices = (torch.tensor([sample[i] for sample in samples]) for i in (1, 2))
        return TrainingBatch(views, labels, indices)


class _EpochSamples(TorchDataset[Sample | int]):
    """Samples of one epoch; a corrupt image yields its bare index."""

    def __init__(
        self,
        images: ImageSet,
        preprocesses: list[Preprocess],
        augmentation: Augmentation | None,
        seed: tuple[int, int],
    ) -> None:
        self._images, self._preprocesses = images, preprocesses
        self._augmentation, self._seed = augmentation, seed

    def __getitem__(self, index: int) -> Sample | int:
        try:
            image = self._images.open_image(index)
        except CorruptImage:
            return index
        if self._augmentation is None:
            views = [resize_and_crop(image, preprocess) for preprocess in self._preprocesses]
        else:
            crop = self._augmentation(image, np.random.default_rng([*self._seed, index]))
            views = [
                np.asarray(crop.resize((view.size, view.size), RESAMPLING[view.interpolation]))
                for view in self._preprocesses
            ]
        return views, int(self._images.labels[index]), index


def training_data(
    dataset: Dataset,
    preprocesses: list[Preprocess],
    batch_size: int,
    min_crop: float | None,
    seed: int,
    workers: int,
) -> TrainingData:
    """The training images of `dataset`; `min_crop` None leaves augmentation out, `workers` -1 chooses."""
    if not len(dataset.val):
        raise InputError(
            "There is no image to validate on.",
            why="Every class has one image only.",
            hint="Add images, or give validation images with --val.",
        )
    augmentation = None if min_crop is None else Augmentation(min_crop, dataset.listing.flip)
    if workers < 0:  # with two cores the network needs both
        cores = os.cpu_count() or 1
        workers = 0 if cores <= 2 else min(8, cores - 2)
    return TrainingData(dataset.train, preprocesses, augmentation, batch_size, seed, workers)
