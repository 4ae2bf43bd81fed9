"""Ranking candidates by what they learn in a short training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from optkit.core.errors import UsageError
from optkit.core.types import Context
from optkit.data.base import Dataset
from optkit.measure.statistics import wilson
from optkit.models.build import build, new_spec
from optkit.stages.base import fabric_for, learning_data, make_trainer, training_images
from optkit.stages.scale.config import Config
from optkit.train.config import PhaseConfig
from optkit.train.objectives import classification
from optkit.train.phase import Diverged

BRIEF_EPOCHS = 2


def rank_by_training(rows: list[dict[str, Any]], config: Config, context: Context) -> list[dict[str, Any]]:
    """The first candidates trained, the most accurate first; the others after them, not trained."""
    if config.data is None:
        raise ValueError("no data to train on")
    data = learning_data(config.data, config, context.reporter)
    count = min(config.candidates, len(rows))
    trained, failed = [], []
    with context.reporter.track("step 1: training candidates", count) as task:
        for row in rows[:count]:
            try:
                trained.append(row | train_briefly(row["arch"], data, config, context))
                task.advance(1, f"{row['arch']} {trained[-1]['top1']:.3f}")
            except Diverged as error:
                context.reporter.warn(f"{row['arch']} is left out: {error.message} {error.why}")
                failed.append(row)
    if not trained:
        raise UsageError("Every candidate diverged.", hint="Give a smaller --lr.")
    trained.sort(key=lambda row: -row["top1"])
    _warn_of_noise(trained, context)
    return trained + failed + rows[count:]


def train_briefly(arch: str, data: Dataset, config: Config, context: Context) -> dict[str, Any]:
    """Train `arch` from scratch for a few epochs; `top1` on the validation images with its 95 % interval, `n`."""
    if context.scratch is not None:  # every candidate goes on where it was killed
        context = replace(context, scratch=context.scratch / arch)
    spec = new_spec(arch, data.class_names, None, None, (data.trained_on(),))
    fabric = fabric_for(config, spec.preprocess.size, context)
    module = build(arch, spec.num_classes)
    images, training = training_images(data, [spec.preprocess], config, fabric, context.reporter)
    options = config.train.completed(False, "all")
    epochs = BRIEF_EPOCHS if config.train.epochs is None else config.train.epochs
    phase = PhaseConfig(unfreeze="all", epochs=epochs, lr=options.lr)
    trainer = make_trainer(module, spec, config, fabric, images, context)
    trainer.fit((phase,), classification(trainer.label_loss()), arch)
    training.report_skipped(context.reporter)
    found = trainer.measure()
    n = found["n"]
    return {"top1": found["top1"], "top1_interval": list(wilson(round(found["top1"] * n), n)), "n": n}


def _warn_of_noise(trained: list[dict[str, Any]], context: Context) -> None:
    """Say so when the winner is not better than others by more than chance."""
    best = trained[0]
    equal = [row["arch"] for row in trained[1:] if row["top1_interval"][1] >= best["top1_interval"][0]]
    if equal:
        context.reporter.warn(
            f"{best['arch']} is not clearly better than {', '.join(equal)}: their 95 % intervals overlap. "
            "More validation images or --epochs would tell them apart."
        )
