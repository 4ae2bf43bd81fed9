"""A module, the images it is validated on, and the record of its training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from optkit.core.progress import Reporter
from optkit.train.config import TrainConfig
from optkit.train.evaluation import evaluate_module
from optkit.train.head import compute_features, fit_head
from optkit.train.loop import Phase, fit


@dataclass
class Trainer:
    """Trains `module` in phases; `history` has one row per epoch.

    `val_batches()` yields the `val_count` validation images in batches of `.pixels` and `.labels`.
    """

    module: nn.Module
    options: TrainConfig
    fabric: Fabric
    val_batches: Callable[[], Iterable[Any]]
    val_count: int
    reporter: Reporter
    history: list[dict[str, Any]] = field(default_factory=list)

    def fit_head(self, batches: Iterable[Any], count: int, epochs: int) -> None:
        """Train the classifier on the features of `count` images, computed once."""
        features, labels = compute_features(self.module, batches, count, self.fabric, self.reporter)
        self.history += fit_head(
            self.module,
            features,
            labels,
            self.options.model_copy(update={"epochs": epochs}),
            self.fabric,
            self.reporter,
        )
        if self.history:
            self.history[-1] |= self._validate(self.fabric.autocast)

    def fit(self, phase: Phase) -> None:
        """Train what is not frozen."""
        self.module.to(self.fabric.device, memory_format=torch.channels_last)
        self.history += fit(
            self.module,
            phase,
            self.fabric,
            lambda: self._validate(self.fabric.autocast),
            self.reporter,
        )

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

    def finish(self) -> dict[str, Any]:
        """Measure the finished module in FP32: `top1` (0…1), `val_loss`, `n`. Moves it to the CPU."""
        result = self._validate(nullcontext)
        if self.history:
            self.history[-1] |= result
        self.module.cpu()
        return {"top1": result["val_top1"], "val_loss": result["val_loss"], "n": result["n"]}

    def _validate(self, autocast: Callable[[], Any]) -> dict[str, float]:
        return evaluate_module(self.module, self.val_batches(), self.val_count, self.reporter, autocast)
