"""A module, the images it learns from, and the record of its training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import nn

from optkit.core.progress import Reporter
from optkit.core.types import Context
from optkit.train.checkpoints import Checkpoints, Progress
from optkit.train.config import PhaseConfig, TrainConfig
from optkit.train.evaluation import evaluate_module
from optkit.train.features import Features, Order, compute_features
from optkit.train.freezing import unfreeze
from optkit.train.label_losses import LabelLoss, label_loss
from optkit.train.loop import PhaseRun
from optkit.train.lr_finder import find_lr
from optkit.train.objectives import Objective, classification
from optkit.train.phase import BEST, STATE, Diverged, Phase, Run
from optkit.train.regularisation import make_mixer

EPOCHS = 1_000_000  # more than a phase has: no two phases draw their images in the same order


class TrainingImages(Protocol):
    """Batches of training images: augmented epochs, and plain views for a head alone."""

    @property
    def steps(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]: ...

    def view(self, number: int, reporter: Reporter) -> Iterable[Any]: ...


@dataclass(frozen=True)
class Images:
    """What a network learns from and is validated on.

    `val()` yields this process's share of the `val_count` validation images; `class_counts` (c,) are the
    training images of every class, `order(labels, rng)` draws the images of an epoch.
    """

    training: TrainingImages
    count: int
    val: Callable[[], Iterable[Any]]
    val_count: int
    class_counts: torch.Tensor
    order: Order


class Trainer:
    """Trains `module` in phases, and goes on where a killed run of the same step stopped.

    `save(module, path)` writes a checkpoint that can be loaded on its own.
    """

    def __init__(
        self,
        module: nn.Module,
        options: TrainConfig,
        fabric: Fabric,
        images: Images,
        context: Context,
        seed: int,
        save: Callable[[nn.Module, Path], None],
    ) -> None:
        self.module, self.options, self.fabric, self.images = module, options, fabric, images
        self.reporter, self._context, self._seed, self._save = context.reporter, context, seed, save
        self._checkpoints = Checkpoints(context.scratch, context.reporter)
        self.progress = Progress(parts=options.accumulate)
        self._last_lr = 0.0

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row per epoch."""
        return self.progress.history

    def label_loss(self) -> LabelLoss:
        """The loss against the labels."""
        return label_loss(self.options, self.images.class_counts)

    def fit(self, phases: tuple[PhaseConfig, ...], objective: Objective, name: str) -> None:
        """Train phase after phase. A phase of the head alone learns labels from cached features.

        `name` is that of the phases on images. Raises UsageError when the loss is no longer a number; the weights
        of the last checkpoint are kept.
        """
        self._go_on(len(phases))
        first_head = 0  # phases of the head alone share their features until the body changes
        try:
            for index in range(self.progress.phase, len(phases)):
                config = phases[index]
                unfreeze(self.module, config.unfreeze, self.options.freeze_bn)
                is_final = index + 1 == len(phases)
                if config.unfreeze == "head":
                    if index and phases[index - 1].unfreeze != "head":
                        first_head = index
                    self._fit_head(self._head_phase(index, config, is_final, first_head))
                else:
                    self._fit_images(self._image_phase(index, config, is_final, objective, name))
        except Diverged as error:
            self._keep_last_good(error)
            raise
        unfreeze(self.module, "all")

    def refresh_statistics(self, batches: Iterable[Any], count: int) -> None:
        """Move the statistics of batch normalisation towards those of `count` images.

        A running average, so that a few hundred images do not replace what many thousands have taught.
        """
        self.module.to(self.fabric.device, memory_format=torch.channels_last).train()
        with torch.no_grad(), self.reporter.track("batch statistics", count) as task:
            for batch in batches:
                pixels = torch.from_numpy(batch.pixels)
                self.module(pixels.to(self.fabric.device, memory_format=torch.channels_last))
                task.advance(len(pixels))

    def measure(self) -> dict[str, Any]:
        """Accuracy in FP32: `top1` (0…1), `val_loss`, `n`."""
        self.module.to(self.fabric.device, memory_format=torch.channels_last)
        result = self._validate(nullcontext)
        return {"top1": result["val_top1"], "val_loss": result["val_loss"], "n": result["n"]}

    def finish(self) -> dict[str, Any]:
        """Choose the weights to keep, measure them in FP32, and move the module to the CPU.

        The other ones of best and last are saved beside, where they differ. UsageError when the network no longer
        answers numbers, which batch normalisation can hide from the training loss.
        """
        best = self.fabric.broadcast(self._checkpoints.load(BEST))
        is_last_best = self.progress.best_row == len(self.history) - 1
        row = len(self.history) - 1
        if best is not None and self.options.keep == "best" and not is_last_best:
            self._save_beside("last.safetensors")
            self.module.load_state_dict(best["network"])
            row = self.progress.best_row
        metrics = self.measure()
        if self.history and not math.isfinite(metrics["val_loss"]):
            error = Diverged(self._last_lr, self.history[-1]["epoch"], metrics["val_loss"])
            self._keep_last_good(error)
            raise error
        self.module.cpu()
        if self.history:
            self.history[row] |= {
                "val_top1": metrics["top1"],
                "val_loss": metrics["val_loss"],
                "n": metrics["n"],
            }
        if best is not None and self.options.keep == "last" and self.progress.best_top1 > metrics["top1"]:
            last = {name: value.clone() for name, value in self.module.state_dict().items()}
            self.module.load_state_dict(best["network"])
            self._save_beside("best.safetensors")
            self.module.load_state_dict(last)
        return metrics

    def details(self) -> dict[str, Any]:
        """What else the report may draw."""
        finder = self.progress.lr_finder
        kept = {"keep": self.options.keep, "parts": self.progress.parts}
        return kept | ({"lr_finder": finder} if finder else {})

    def _go_on(self, phases: int) -> None:
        """Take up the checkpoint of a killed run."""
        state = self._checkpoints.load(STATE)
        if state is None:
            return
        self.progress = Progress(**state["progress"])
        self.module.load_state_dict(state["network"])
        if self.progress.phase < phases:
            self.reporter.info(
                f"Going on at phase {self.progress.phase + 1} of {phases}, epoch {self.progress.epoch + 1}, "
                f"step {self.progress.step + 1}."
            )

    def _run(self) -> Run:
        return Run(
            self.module,
            self.options,
            self.fabric,
            self.reporter,
            self._checkpoints,
            self.progress,
            self._seed,
        )

    def _image_phase(
        self, index: int, config: PhaseConfig, is_final: bool, objective: Objective, name: str
    ) -> Phase:
        training = self.images.training
        return Phase(
            index=index,
            name=name,
            epochs=config.epochs,
            lr=config.lr or 0.0,
            steps=training.steps,
            batches=lambda epoch, start: training.epoch(EPOCHS * index + epoch, start),
            objective=objective,
            evaluate=lambda: self._validate(self.fabric.autocast),
            mixer=make_mixer(self.options, len(self.images.class_counts)),
            is_final=is_final,
        )

    def _fit_images(self, phase: Phase) -> None:
        run = self._run()
        if not phase.lr:
            if self.progress.lr_finder is None:
                self.progress.lr_finder = find_lr(self.module, phase, run)
                run.save({})
            phase = replace(phase, lr=self.progress.lr_finder["suggestion"])
        self._last_lr = phase.lr
        PhaseRun(self.module, phase, run).fit()

    def _head_phase(self, index: int, config: PhaseConfig, is_final: bool, first: int) -> Phase:
        learnt, validated = self._features(f"features-{first}")
        head = self.module.get_classifier()
        return Phase(
            index=index,
            name="head",
            epochs=config.epochs,
            lr=config.lr or 0.0,
            steps=learnt.steps(),
            batches=lambda epoch, start: learnt.batches([self._seed, index, epoch], start),
            objective=classification(self.label_loss()),
            evaluate=lambda: validated.evaluate(head, self.fabric.device),
            is_shared=False,
            is_final=is_final,
        )

    def _fit_head(self, phase: Phase) -> None:
        self._last_lr = phase.lr
        PhaseRun(self.module.get_classifier(), phase, self._run()).fit()

    def _features(self, name: str) -> tuple[Features, Features]:
        """Features of the training images in every view, and of the validation images; kept for a resume."""
        images, reporter = self.images, self.reporter
        views = [
            self._cached(
                f"{name}-{number}", lambda number=number: images.training.view(number, reporter), images.count
            )
            for number in range(self.options.head_views)
        ]
        val = self._cached(f"{name}-val", images.val, images.val_count)
        learnt = Features([view["features"] for view in views], views[0]["labels"], images.order)
        return learnt, Features([val["features"]], val["labels"], images.order)

    def _cached(self, name: str, batches: Callable[[], Iterable[Any]], count: int) -> dict[str, torch.Tensor]:
        saved = self._checkpoints.load(name)
        if saved is None:
            features, labels = compute_features(self.module, batches(), count, self.fabric, self.reporter)
            saved = {"features": features, "labels": labels}
            if self.fabric.is_global_zero:
                self._checkpoints.save(name, saved)
        return saved

    def _keep_last_good(self, error: Diverged) -> None:
        """Save the weights of the last checkpoint that answers numbers, and tell where they are."""
        if self._context.scratch is None or not self.fabric.is_global_zero:
            return
        for state in map(self._checkpoints.load, (STATE, BEST)):
            if state is None:
                continue
            self.module.cpu().load_state_dict(state["network"])
            if self._answers_numbers():
                path = self._context.scratch / "last_good.safetensors"
                self._save(self.module, path)
                error.hint += f" The last good weights are kept in {path}."
                return

    def _answers_numbers(self) -> bool:
        """Whether the network, on the CPU, answers some validation images without NaN or infinity."""
        with torch.inference_mode():
            answers = (self.module.eval()(torch.from_numpy(batch.pixels)) for batch in self.images.val())
            first = next(answers, None)
        return first is not None and bool(torch.isfinite(first).all())

    def _save_beside(self, name: str) -> None:
        if self.fabric.is_global_zero:
            self._save(self.module, self._context.workdir / name)

    def _validate(self, autocast: Callable[[], AbstractContextManager[Any]]) -> dict[str, float]:
        images = self.images
        return evaluate_module(
            self.module, images.val(), images.val_count, self.fabric, self.reporter, autocast
        )
