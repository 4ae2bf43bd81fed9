"""Training speed on the CPU: images per second against the training loop of timm's train.py.

    python benchmarks/finetune.py --data photos

Both train the same network from the same weights on the same photos at one size, with the same batch (cached
features: 64), AdamW, label smoothing of 0.1, cosine schedule and augmentation: bicubic crops of 0.6 to 1 of the
image at 4:5 to 5:4, and mirroring, nothing else (train.py's default colour jitter is left out, which only
spares it work). Every measurement has a process of its own, in turns, the order changing every round.

timm's side is the loop of train.py (timm 1.0, --device cpu) with timm's own data set, loader, loss, optimiser
and scheduler; FP32 as is its default, with loader processes or without, whichever is quicker; besides, with
the options --channels-last and --amp --amp-dtype bfloat16. optkit's side is its stage `finetune` as it is.

* all layers: one epoch without its first two steps, on both sides; from the batch being loaded to the weights
  being updated, without validation.
* frozen body: timm has no such option; its loop runs with the body in eval mode and without gradients, as
  above. optkit's are the epochs after the first one, which include validation on cached features and a
  checkpoint per epoch; what the features took before that is `preparation_seconds`.

A ratio is the median over the rounds, from the lowest to the highest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from loading import sample_photos
from rich.console import Console
from rich.progress import track
from rich.table import Table
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter

from optkit.core import machine
from optkit.core.progress import SilentReporter
from optkit.core.types import Context
from optkit.models.build import new_spec
from optkit.models.names import timm_name
from optkit.models.weights import pretrained
from optkit.stages.finetune import stage
from optkit.stages.finetune.config import Config
from optkit.train.config import TrainConfig
from optkit.train.features import HEAD_BATCH

WARM_UP = 2  # steps
HEAD_EPOCHS = 11  # the first one is not counted
MIN_CROP = 0.6
ASPECT = (4 / 5, 5 / 4)
LR = 5e-4


@dataclass(frozen=True)
class Variant:
    """One way to train. `options` are timm's `workers`, `channels_last` and `amp`, or optkit's training options."""

    name: str
    tool: str
    learns: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """What one process measured."""

    images_per_second: float
    preparation_seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """A variant, with all its measurements and its ratio to timm's defaults (median, lowest, highest)."""

    learns: str
    name: str
    images_per_second: list[float]
    ratio: tuple[float, float, float]
    preparation_seconds: float | None


def reference(learns: str, workers: int) -> Variant:
    """timm's defaults."""
    return Variant(f"timm, {workers} workers", "timm", learns, {"workers": workers})


VARIANTS = [
    reference("all", 0),
    reference("all", 2),
    Variant("timm --channels-last", "timm", "all", {"channels_last": True}),
    Variant("timm --amp", "timm", "all", {"amp": True}),
    Variant("timm --amp --channels-last", "timm", "all", {"amp": True, "channels_last": True}),
    Variant("optkit", "optkit", "all", {}),
    Variant("optkit --precision fp32", "optkit", "all", {"precision": "fp32"}),
    reference("head", 0),
    reference("head", 2),
    Variant("timm --amp --channels-last", "timm", "head", {"amp": True, "channels_last": True}),
    Variant("optkit", "optkit", "head", {}),
    Variant("optkit --head-views 4", "optkit", "head", {"head_views": 4}),
]


class Clock(SilentReporter):
    """Takes the time at the start of the training, and after each step of it."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[float] = []
        self.features_started: float | None = None

    @contextmanager
    def track(self, description: str, total: int | None = None) -> Iterator[Any]:
        is_training = description.startswith("training")
        if description == "features" and self.features_started is None:
            self.features_started = time.perf_counter()
        with super().track(description, total) as task:
            yield self if is_training else task

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.moments.append(time.perf_counter())


def timm_network(args: argparse.Namespace, learns: str) -> torch.nn.Module:
    """timm's own module with the weights that optkit starts from."""
    start, _ = pretrained(args.arch, args.classes, args.weights, SilentReporter(), size=args.size)
    model: torch.nn.Module = timm.create_model(timm_name(args.arch), num_classes=args.classes)
    model.load_state_dict(start.state_dict())
    if learns == "head":
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    return model


def timm_loader(args: argparse.Namespace, workers: int) -> Any:
    """Loader of train.py, which normalises whole batches."""
    preprocess = new_spec(args.arch, ("a", "b"), args.size, None, ()).preprocess
    return create_loader(
        create_dataset("", root=str(args.data), split="train", is_training=True, batch_size=args.batch),
        input_size=(3, args.size, args.size),
        batch_size=args.batch,
        is_training=True,
        scale=(MIN_CROP, 1.0),
        ratio=ASPECT,
        hflip=0.5,
        color_jitter=None,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        num_workers=workers,
        device=torch.device("cpu"),
    )


def timm_moments(args: argparse.Namespace, variant: Variant) -> list[float]:
    """One epoch as in train_one_epoch of train.py; the time before it and after each step."""
    options = variant.options
    model, loader = (
        timm_network(args, variant.learns),
        timm_loader(args, options.get("workers", args.workers)),
    )
    if options.get("channels_last"):
        model.to(memory_format=torch.channels_last)
    amp_autocast = partial(torch.autocast, "cpu", torch.bfloat16) if options.get("amp") else suppress
    optimizer = create_optimizer_v2(model, opt="adamw", lr=LR, weight_decay=TrainConfig().weight_decay)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=1, updates_per_epoch=len(loader), step_on_epochs=False
    )
    loss_fn, losses = LabelSmoothingCrossEntropy(smoothing=TrainConfig().label_smoothing), AverageMeter()
    model.train(variant.learns == "all")
    moments = [time.perf_counter()]
    for number, (pixels, target) in enumerate(loader):
        if options.get("channels_last"):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with amp_autocast():
            loss = loss_fn(model(pixels), target)
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(pixels))
        optimizer.zero_grad()
        scheduler.step_update(num_updates=number + 1, metric=losses.avg)
        moments.append(time.perf_counter())
    return moments


def optkit_clock(args: argparse.Namespace, variant: Variant) -> Clock:
    """The stage on the same photos: one epoch of all layers, or a few of the head."""
    clock = Clock()
    phase = {"unfreeze": variant.learns, "epochs": 1 if variant.learns == "all" else HEAD_EPOCHS, "lr": LR}
    config = Config(
        arch=args.arch,
        weights=args.weights,
        size=args.size,
        data={"path": str(args.data), "check_leaks": False},
        augment={"min_crop": MIN_CROP},
        train={"batch_size": args.batch, "phases": [phase], **variant.options},
    )
    with tempfile.TemporaryDirectory() as folder:
        stage.run(config, {}, Context(Path(folder), clock, Path(folder) / "scratch"))
    return clock


def measure(args: argparse.Namespace, variant: Variant) -> Figure:
    """The speed of `variant`, in this process."""
    if variant.tool == "timm":
        return Figure(speed(timm_moments(args, variant), args.batch))
    clock = optkit_clock(args, variant)
    if variant.learns == "all":
        return Figure(speed(clock.moments, args.batch))
    steps = (len(clock.moments) - 1) // HEAD_EPOCHS
    seconds = clock.moments[-1] - clock.moments[steps]  # from the end of the first epoch
    seen = (HEAD_EPOCHS - 1) * steps * min(HEAD_BATCH, args.images)
    assert clock.features_started is not None
    return Figure(
        seen / seconds,
        preparation_seconds=clock.moments[0] - clock.features_started,
    )


def speed(moments: list[float], batch: int) -> float:
    """Images per second after the warm-up."""
    return (len(moments) - 1 - WARM_UP) * batch / (moments[-1] - moments[WARM_UP])


def in_own_process(args: argparse.Namespace, number: int) -> Figure:
    """Measure a variant on the CPU in a process that has done nothing else."""
    options = {
        name: getattr(args, name) for name in ("arch", "weights", "size", "batch", "images", "workers")
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, __file__, *words, "--data", str(args.data), "--variant", str(number)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    return Figure(**json.loads(done.stdout.splitlines()[-1]))


def rounds(args: argparse.Namespace) -> list[list[Figure]]:
    """`found[variant][round]`. timm's options are measured with the loader that was quicker in the first round."""
    found: list[list[Figure]] = [[] for _ in VARIANTS]
    for number in track(range(args.rounds), "rounds", console=Console(stderr=True)):
        order = list(range(len(VARIANTS)))
        # Later rounds go backwards and forwards; the first must know the better loader before it is needed.
        for place in order[::-1] if number % 2 else order:
            found[place].append(in_own_process(args, place))
            if number == 0 and VARIANTS[place] == reference("all", 2):
                args.workers = 0 if found[0][0].images_per_second >= found[1][0].images_per_second else 2
    return found


def quicker_loader(learns: str, found: list[list[Figure]]) -> int:
    """Which of the two references of `learns` has the higher median."""
    places = [VARIANTS.index(reference(learns, workers)) for workers in (0, 2)]
    return max(places, key=lambda place: median(figure.images_per_second for figure in found[place]))


def rows_of(found: list[list[Figure]]) -> list[Row]:
    """Every variant against the quicker reference of the same round."""
    rows = []
    for variant, figures in zip(VARIANTS, found, strict=True):
        base = found[quicker_loader(variant.learns, found)]
        ratios = [a.images_per_second / b.images_per_second for a, b in zip(figures, base, strict=True)]
        prepared = [one.preparation_seconds for one in figures if one.preparation_seconds is not None]
        rows.append(
            Row(
                learns=variant.learns,
                name=variant.name,
                images_per_second=[figure.images_per_second for figure in figures],
                ratio=(median(ratios), min(ratios), max(ratios)),
                preparation_seconds=median(prepared) if prepared else None,
            )
        )
    return rows


def show(rows: list[Row]) -> None:
    """The rows as a table."""
    table = Table(
        "learns", "tool", "images/s", "ratio (lowest–highest)", "features once", title="Training on the CPU"
    )
    for row in rows:
        ratio, low, high = row.ratio
        prepared = row.preparation_seconds
        table.add_row(
            {"all": "all layers", "head": "frozen body"}[row.learns],
            row.name,
            f"{median(row.images_per_second):.1f}",
            f"{ratio:.2f} ({low:.2f}–{high:.2f})",
            "" if prepared is None else f"{prepared:.1f} s",
        )
    Console().print(table)


def options_of(description: str | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of class folders, or with train/ of such"
    )
    parser.add_argument("--arch", default="lite0")
    parser.add_argument("--weights", default="package", help="as of optkit finetune")
    parser.add_argument("--size", type=int, default=224, help="input side in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=256, help="photos of an epoch, whole batches of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finetune.json")
    parser.add_argument("--variant", type=int, help=argparse.SUPPRESS)  # measured by this very process
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.images % args.batch or args.images <= WARM_UP * args.batch:
        parser.error(
            f"--images must be a multiple of --batch ({args.batch}), and more than {WARM_UP} of them"
        )
    return args


def main() -> None:
    """Measure, show and store."""
    args = options_of(__doc__)
    if args.variant is not None:
        args.classes = sum(entry.is_dir() for entry in (args.data / "train").iterdir())
        print(json.dumps(asdict(measure(args, VARIANTS[args.variant]))))
        return
    options = {name: getattr(args, name) for name in ("arch", "weights", "size", "batch", "images", "rounds")}
    with tempfile.TemporaryDirectory() as folder:
        sample_photos(args.data, Path(folder) / "train", args.images, scale=1)
        sample_photos(args.data, Path(folder) / "val", args.images // 4, scale=1)
        args.data = Path(folder)
        rows = rows_of(rounds(args))
    show(rows)
    result = {"options": options, "rows": [asdict(row) for row in rows], "machine": machine.facts()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
