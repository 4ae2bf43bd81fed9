"""Shuffled, augmented batches for training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from optkit.core.errors import InputError, UsageError
from optkit.core.progress import Reporter
from optkit.core.types import Preprocess
from optkit.data.augment import CHANCES, Augmentation, balanced_order, mirror, natural_order
from optkit.data.base import CorruptImage, Dataset, ImageSet
from optkit.data.config import AugmentConfig
from optkit.data.loading import Batch, read_input

ORDERS = {"natural": natural_order, "balanced": balanced_order}
EVALUATED, MIRRORED = 0, 1  # the views that no chance is in

_Rendered = tuple[int, list[NDArray[np.uint8]]]


@dataclass(frozen=True)
class TrainingBatch:
    """`views[i]` is the batch as the i-th model wants it, float32 (n, 3, size_i, size_i)."""

    views: list[torch.Tensor]
    labels: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True)
class _Request:
    """An image to render: varied by `chances`, or without them as in evaluation, `mirrored` or not."""

    index: int
    chances: NDArray[np.float64] | None = None
    mirrored: bool = False


class TrainingData:
    """Batches of `images`, epoch by epoch, each image as every one of `preprocesses` wants it.

    All views of an image show the same random crop, so that a student can learn what a teacher says of it at
    another size. Randomness depends on seed, epoch and the image's place in the epoch's order alone, not on
    workers, history or the number of processes. Of every batch this process yields its share of `shard`.
    """

    def __init__(
        self,
        images: ImageSet,
        preprocesses: list[Preprocess],
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        workers: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self._images, self._preprocesses = images, preprocesses
        self._augmentation, self._seed, self._workers = augmentation, seed, workers
        self._rank, self._world = shard
        self.batch_size = min(batch_size, len(images) // self._world * self._world)
        self.skipped: set[str] = set()
        self._reported: set[str] = set()

    @property
    def steps(self) -> int:
        """Batches in an epoch; a smaller last batch is left out, as batch normalisation suffers from it."""
        return len(self._images) // self.batch_size

    def epoch(self, number: int, start: int = 0) -> Iterator[TrainingBatch]:
        """The batches of epoch `number` from step `start` on, in that epoch's own random order.

        Corrupt images are left out. Where nothing remains of this process's share of a batch, it is the first
        decodable images of the training set as in evaluation: there are always `steps` batches, or several
        processes would wait for each other. InputError when no image can be decoded.
        """
        config, size = self._augmentation.config, self.batch_size
        rng = np.random.default_rng([self._seed, number])
        order = ORDERS[config.sampling](self._images.labels, rng)
        chances = rng.random((len(order), CHANCES)) if config.enabled else [None] * len(order)
        requests = (
            [
                _Request(int(order[place]), chances[place])
                for place in range(step * size + self._rank, (step + 1) * size, self._world)
            ]
            for step in range(start, self.steps)
        )
        for views, indices in self._rendered(requests, self._preprocesses):
            if not len(indices):
                views, indices = self._replacement()
            labels = torch.from_numpy(self._images.labels[indices])
            yield TrainingBatch(views, labels, torch.from_numpy(indices))

    def view(self, number: int, reporter: Reporter) -> Iterator[Batch]:
        """Every image of this process's share once, in order, as the first model wants it.

        Number 0 is the evaluation's view and 1 its mirror image; the others, and 1 where mirroring changes
        labels, are random variations, each of its own. Without augmentation every view is number 0.
        """
        augmentation, images, size = self._augmentation, self._images, self.batch_size // self._world
        is_plain = number == EVALUATED or not augmentation.config.enabled
        is_mirrored = number == MIRRORED and augmentation.flip and not is_plain
        is_varied = not (is_plain or is_mirrored)
        # Row i is the same whatever the number of images.
        chances = np.random.default_rng([self._seed, number]).random((len(images), CHANCES))
        own = range(self._rank, len(images), self._world)
        requests = (
            [
                _Request(index, chances[index] if is_varied else None, is_mirrored)
                for index in own[first : first + size]
            ]
            for first in range(0, len(own), size)
        )
        for views, indices in self._rendered(requests, self._preprocesses[:1]):
            if len(indices):
                yield Batch(views[0].numpy(), images.labels[indices], indices)
        self.report_skipped(reporter)

    def report_skipped(self, reporter: Reporter) -> None:
        """Warn, once, of each image that turned out corrupt on the way."""
        if found := sorted(self.skipped - self._reported):
            reporter.warn(f"Skipped {len(found)} corrupt images: {', '.join(found[:5])}.")
        self._reported.update(found)

    def _rendered(
        self, requests: Iterable[list[_Request]], preprocesses: list[Preprocess]
    ) -> Iterator[tuple[list[torch.Tensor], NDArray[np.int64]]]:
        """Normalised views and image indices of each list of requests; corrupt images are left out.

        Without any views where all are corrupt.
        """
        loader = DataLoader(
            _Renderer(self._images, preprocesses, self._augmentation),
            batch_sampler=requests,
            num_workers=self._workers,
            collate_fn=_stack,
            generator=torch.Generator(),  # else it draws from the one that the network's dropout draws from
        )
        for views, good, corrupt in loader:
            self.skipped.update(self._images.ids[index] for index in corrupt)
            pairs = zip(views, preprocesses, strict=False)
            yield (
                [_normalise(view, preprocess) for view, preprocess in pairs],
                np.array(good, np.int64),
            )

    def _replacement(self) -> tuple[list[torch.Tensor], NDArray[np.int64]]:
        """As many images as this process's share of a batch has, from the beginning of the set."""
        renderer = _Renderer(self._images, self._preprocesses, self._augmentation)
        rendered = (renderer[_Request(index)] for index in range(len(self._images)))
        found = list(islice((one for one in rendered if one[1]), self.batch_size // self._world))
        if not found:
            raise InputError(
                "No training image can be decoded.", hint="Check the images, or give --strict to see why."
            )
        stacked, good, _ = _stack(found)
        pairs = zip(stacked, self._preprocesses, strict=True)
        return [_normalise(view, preprocess) for view, preprocess in pairs], np.array(good, np.int64)


class _Renderer(TorchDataset[_Rendered]):
    """The index that each request is for, and what it shows: an array per preprocess, none when corrupt."""

    def __init__(self, images: ImageSet, preprocesses: list[Preprocess], augmentation: Augmentation) -> None:
        self._images, self._preprocesses, self._augmentation = images, preprocesses, augmentation

    def __getitem__(self, request: _Request) -> _Rendered:
        try:
            return request.index, self._views(request)
        except CorruptImage:
            return request.index, []

    def _views(self, request: _Request) -> list[NDArray[np.uint8]]:
        if request.chances is not None:
            return self._augmentation(self._images, request.index, self._preprocesses, request.chances)
        views = [read_input(self._images, request.index, preprocess) for preprocess in self._preprocesses]
        return [mirror(view) for view in views] if request.mirrored else views


def _stack(rendered: list[_Rendered]) -> tuple[list[torch.Tensor], list[int], list[int]]:
    """One uint8 tensor (n, 3, size, size) per preprocess, the images in it, and the corrupt ones."""
    shown = [views for _, views in rendered if views]
    stacked = [torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2) for views in zip(*shown, strict=True)]
    good, corrupt = (
        [index for index, views in rendered if bool(views) is wanted] for wanted in (True, False)
    )
    return stacked, good, corrupt


def _normalise(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """uint8 → float32, both (n, 3, size, size)."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return pixels.contiguous().float().mul_(1 / (255 * std)).sub_(mean / std)


def training_data(
    dataset: Dataset,
    preprocesses: list[Preprocess],
    batch_size: int,
    augment: AugmentConfig,
    seed: int,
    workers: int,
    shard: tuple[int, int] = (0, 1),
) -> TrainingData:
    """The training images of `dataset`; `workers` -1 chooses.

    `batch_size` counts the images of all processes; `shard` is (rank, number of processes).
    """
    if not len(dataset.val):
        raise InputError(
            "There is no image to validate on.",
            why="Every class has one image only.",
            hint="Add images, or give validation images with --val.",
        )
    _check_shares(batch_size, len(dataset.train), shard[1])
    augmentation = Augmentation(augment, dataset.listing.flip)
    if workers < 0:  # with two cores the network needs both
        cores = os.cpu_count() or 1
        workers = 0 if cores <= 2 else min(8, cores - 2)
    return TrainingData(dataset.train, preprocesses, augmentation, batch_size, seed, workers, shard)


def _check_shares(batch_size: int, images: int, world: int) -> None:
    if batch_size % world:
        raise UsageError(
            f"A batch of {batch_size} images cannot be shared evenly by {world} processes.",
            hint=f"Use --batch-size {batch_size // world * world or world}.",
        )
    if images < world:
        raise UsageError(
            f"{images} training images are too few for {world} processes.", hint="Use fewer --devices."
        )
