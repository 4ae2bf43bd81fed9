"""Loading alone: images per CPU-second against torchvision's ImageFolder, Pillow and v1 transforms.

    python benchmarks/loading.py --data photos/train

Both load the same files to the same size with the same interpolation and normalisation, in turns in one
process with one thread; what is counted is CPU time, so that other programs hardly matter. Photos differ in
size: besides a sample of the given ones, copies of it at two and three times the side (JPEG quality 90) are
measured. The difference is the mean over all pixels, from what Pillow makes of the same part of the photo.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from optkit.core import machine
from optkit.core.progress import SilentReporter
from optkit.core.types import Preprocess
from optkit.data.augment import CHANCES, Augmentation
from optkit.data.base import Dataset, ImageSet, Listing
from optkit.data.config import AugmentConfig, DataConfig, class_folders, shares
from optkit.data.files import is_image
from optkit.data.loading import batches, read_input
from optkit.data.sources import imagefolder
from optkit.data.training import training_data
from optkit.measure.statistics import bootstrap

BATCH = 32
SCALES = (1, 2, 3)
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Row:
    """Milliseconds of CPU per image, their ratio with a 95 % interval, the mean difference in 8-bit levels."""

    pipeline: str
    photos: str
    median_short_side: int
    torchvision_ms: float
    optkit_ms: float
    ratio: float
    interval: tuple[float, float]
    difference: float


def sample_photos(folder: Path, target: Path, count: int, scale: int) -> None:
    """Copy `count` photos spread over the classes of `folder`, at `scale` times their side."""
    files = [
        file for one in class_folders(shares(folder)[0]) for file in sorted(one.rglob("*")) if is_image(file)
    ]
    for number in np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)):
        file = files[number]
        copy = target / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if scale == 1:
            shutil.copyfile(file, copy)
            continue
        image = Image.open(file).convert("RGB")
        larger = image.resize((scale * image.width, scale * image.height), Image.Resampling.LANCZOS)
        larger.save(copy.with_suffix(".jpg"), quality=JPEG_QUALITY)


def theirs(folder: Path, preprocess: Preprocess, min_crop: float | None) -> DataLoader[torch.Tensor]:
    """ImageFolder with v1 transforms; `min_crop` None: evaluation."""
    resample = transforms.InterpolationMode(preprocess.interpolation)
    size = preprocess.size
    if min_crop is None:
        crop = [transforms.Resize(int(size / preprocess.crop_pct), resample), transforms.CenterCrop(size)]
    else:
        crop = [
            transforms.RandomResizedCrop(size, scale=(min_crop, 1), interpolation=resample),
            transforms.RandomHorizontalFlip(),
        ]
    finish = [transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)]
    dataset = ImageFolder(str(folder), transforms.Compose([*crop, *finish]))
    return DataLoader(dataset, BATCH, shuffle=min_crop is not None)


def cpu_seconds(load: Callable[[], Iterable[object]]) -> float:
    """CPU time of one pass."""
    start = time.process_time()
    for _ in load():
        pass
    return time.process_time() - start


def in_turns(
    first: Callable[[], Iterable[object]], second: Callable[[], Iterable[object]], rounds: int
) -> NDArray:
    """CPU seconds (rounds, 2) of one pass each, the order changing every time; after a pass that is not counted."""
    for load in (first, second):
        cpu_seconds(load)
    found = np.empty((rounds, 2))
    for number in range(rounds):
        for place in (0, 1) if number % 2 else (1, 0):
            found[number, place] = cpu_seconds((first, second)[place])
    return found


def evaluation_difference(folder: Path, images: ImageSet, preprocess: Preprocess) -> float:
    """Mean |ours − torchvision's| in levels, over all photos."""
    transform = transforms.Compose(theirs(folder, preprocess, None).dataset.transform.transforms[:2])
    pairs = (
        (np.asarray(transform(images.open_image(index))), read_input(images, index, preprocess))
        for index in range(len(images))
    )
    return float(np.mean([np.abs(a.astype(int) - b.astype(int)).mean() for a, b in pairs]))


def training_difference(images: ImageSet, preprocess: Preprocess, augment: AugmentConfig) -> float:
    """Mean |ours − Pillow's| in levels, of the same random crops."""
    augmentation = Augmentation(augment, flip=False)
    chances = np.random.default_rng(0).random((len(images), CHANCES))
    resample = Image.Resampling[preprocess.interpolation.upper()]
    found = []
    for index in range(len(images)):
        crop = augmentation.crop(chances[index])
        cut = Image.fromarray(crop.cut(np.asarray(images.open_image(index))))
        exact = np.asarray(cut.resize((preprocess.size, preprocess.size), resample), int)
        (ours,) = augmentation(images, index, [preprocess], chances[index])
        found.append(np.abs(exact - ours.astype(int)).mean())
    return float(np.mean(found))


def measure(folder: Path, photos: str, preprocess: Preprocess, min_crop: float, rounds: int) -> list[Row]:
    """The two pipelines on the photos in `folder`."""
    images = imagefolder.load(str(folder), DataConfig(path=str(folder))).train
    dataset = Dataset(Listing(images), images, images, whole=None)
    augment = AugmentConfig(min_crop=min_crop)
    training = training_data(dataset, [preprocess], BATCH, augment, seed=0, workers=0)
    evaluation = partial(batches, images, preprocess, BATCH, SilentReporter())
    short = int(np.median([min(images.open_image(index).size) for index in range(len(images))]))
    cases = [
        ("evaluation", None, evaluation, len(images), evaluation_difference(folder, images, preprocess)),
        (
            "training",
            min_crop,
            partial(training.epoch, 0),
            training.steps * training.batch_size,
            training_difference(images, preprocess, augment),
        ),
    ]
    rows = []
    for pipeline, crop, load, loaded, difference in cases:
        loader = theirs(folder, preprocess, crop)
        seconds = in_turns(partial(iter, loader), load, rounds) / (len(images), loaded)

        def ratio(counts: NDArray[np.int64], seconds: NDArray = seconds) -> NDArray[np.float64]:
            first, second = counts @ seconds
            return np.array([first / second])

        low, high = bootstrap(ratio, rounds, seed=0)[0].tolist()
        torchvision_ms, optkit_ms = (1000 * seconds.mean(axis=0)).tolist()
        rows.append(
            Row(
                pipeline,
                photos,
                short,
                torchvision_ms,
                optkit_ms,
                torchvision_ms / optkit_ms,
                (low, high),
                difference,
            )
        )
    return rows


def show(rows: list[Row]) -> None:
    """The rows as a table."""
    table = Table(
        "pipeline",
        "photos",
        "short side",
        "torchvision",
        "optkit",
        "ratio (95 %)",
        "difference",
        title="CPU ms per image; difference in levels of 255",
    )
    for row in rows:
        table.add_row(
            row.pipeline,
            row.photos,
            f"{row.median_short_side} px",
            f"{row.torchvision_ms:.2f}",
            f"{row.optkit_ms:.2f}",
            f"{row.ratio:.2f} ({row.interval[0]:.2f}–{row.interval[1]:.2f})",
            f"{row.difference:.3f}",
        )
    Console().print(table)


def main() -> None:
    """Measure, show and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of class folders, or with train/ of such"
    )
    parser.add_argument("--size", type=int, default=224, help="output side in pixels")
    parser.add_argument("--interpolation", choices=("bilinear", "bicubic"), default="bicubic")
    parser.add_argument("--min-crop", type=float, default=0.08, help="smallest share of a training crop")
    parser.add_argument("--images", type=int, default=256, help="photos to sample")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "loading.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    preprocess = Preprocess(size=args.size, interpolation=args.interpolation, crop_pct=0.875)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for scale in SCALES:
            photos = "as given" if scale == 1 else f"{scale}x side"
            target = Path(folder) / str(scale)
            sample_photos(args.data, target, args.images, scale)
            rows += measure(target, photos, preprocess, args.min_crop, args.rounds)
    show(rows)
    options = {
        name: getattr(args, name) for name in ("size", "interpolation", "min_crop", "images", "rounds")
    }
    result = {"options": options, "rows": [asdict(row) for row in rows], "machine": machine.facts()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
