"""What the stages that train share: images for the loop, out of a data set and the options."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from optkit.core.progress import Reporter
from optkit.core.types import Context, Format, ModelSpec, Output, Preprocess
from optkit.data.base import Dataset
from optkit.data.config import AugmentConfig, TrainingDataConfig
from optkit.data.leaks import with_leaks
from optkit.data.load import load_data, warn_of_imbalance
from optkit.data.loading import batches
from optkit.data.training import ORDERS, TrainingData, training_data
from optkit.measure.cost import module_cost
from optkit.models.checkpoint import save_checkpoint
from optkit.train.config import TrainConfig
from optkit.train.engine import make_fabric
from optkit.train.freezing import unfreeze
from optkit.train.optimisation import check_optimizer
from optkit.train.trainer import Images, Trainer


class TrainingConfig(Protocol):
    """The options that every training stage has."""

    @property
    def seed(self) -> int: ...

    @property
    def augment(self) -> AugmentConfig: ...

    @property
    def train(self) -> TrainConfig: ...


def check_training(module: nn.Module, options: TrainConfig) -> None:
    """What is to learn exists in `module`, and the optimiser can be made."""
    check_optimizer(options)
    for what in [options.unfreeze, *(phase.unfreeze for phase in options.phases)]:
        if what != "auto":
            unfreeze(module, what)


def learning_data(data: TrainingDataConfig, config: TrainingConfig, reporter: Reporter) -> Dataset:
    """The data set, with warnings of what spoils a training or its measurement: copies, and rare classes."""
    dataset = with_leaks(load_data(data, reporter), data, reporter)
    warn_of_imbalance(dataset, config.augment.sampling, reporter)
    return dataset


def fabric_for(config: TrainingConfig, size: int, context: Context) -> Fabric:
    """Fabric for training at input size `size`; logs carry the name of the step's key."""
    name = context.scratch.name if context.scratch else "run"
    return make_fabric(config.train, size, config.seed, name)


def training_images(
    data: Dataset, preprocesses: list[Preprocess], config: TrainingConfig, fabric: Fabric, reporter: Reporter
) -> tuple[Images, TrainingData]:
    """This process's share of the images, for a network of `preprocesses[0]` (and a teacher of the last)."""
    shard = (fabric.global_rank, fabric.world_size)
    options = config.train
    training = training_data(
        data, preprocesses, options.batch_size, config.augment, config.seed, options.workers, shard
    )
    val = data.val.subset(np.arange(len(data.val))[shard[0] :: shard[1]])
    counts = np.bincount(data.train.labels, minlength=len(data.class_names))
    images = Images(
        training=training,
        count=len(data.train),
        val=partial(batches, val, preprocesses[0], max(1, 2 * options.batch_size // shard[1]), reporter),
        val_count=len(data.val),
        class_counts=torch.from_numpy(counts),
        order=ORDERS[config.augment.sampling],
    )
    return images, training


def make_trainer(
    module: nn.Module,
    spec: ModelSpec,
    config: TrainingConfig,
    fabric: Fabric,
    images: Images,
    context: Context,
) -> Trainer:
    """A trainer of `module` whose checkpoints carry `spec`."""

    def save(network: nn.Module, path: Path) -> None:
        save_checkpoint(network, spec, path)

    return Trainer(module, config.train, fabric, images, context, config.seed, save)


def trained_output(
    trainer: Trainer, spec: ModelSpec, data: Dataset, context: Context, details: dict[str, Any]
) -> Output:
    """The finished network, measured, counted and saved."""
    metrics = trainer.finish()
    cost = module_cost(trainer.module, spec.preprocess.size)
    save_checkpoint(trainer.module, spec, context.workdir / Format.TORCH.filename)
    return Output(
        format=Format.TORCH,
        spec=spec,
        metrics=metrics | cost.metrics(),
        history=trainer.history,
        details={"data": data.summary(), **details, **trainer.details()},
    )
