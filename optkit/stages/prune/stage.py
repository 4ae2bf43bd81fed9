"""Structured pruning with recovery."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from optkit.core import discover
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Context, Output
from optkit.data.load import check_classes
from optkit.data.loading import Batch, batches
from optkit.data.sampling import stratified_subset
from optkit.measure.cost import module_cost
from optkit.models.build import classifier, fits_pretrained
from optkit.models.checkpoint import load_module
from optkit.stages.base import (
    check_training,
    fabric_for,
    learning_data,
    make_trainer,
    trained_output,
    training_images,
)
from optkit.stages.prune.channels import choose_widths, find_groups, pruned_spec, remove_channels
from optkit.stages.prune.config import CRITERIA, Config
from optkit.train.losses.kl import loss as kl_loss
from optkit.train.objectives import Objective, distillation
from optkit.train.optimisation import check_optimizer
from optkit.train.trainer import Trainer


def check(config: Config) -> None:
    """The optimiser can be made."""
    check_optimizer(config.train)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Score, remove, re-estimate batch normalisation, and train with the dense model as the teacher."""
    reporter = context.reporter
    source = next(iter(inputs["model"].values()))
    size = source.spec.preprocess.size
    data = learning_data(config.data, config, reporter)
    check_classes(source.spec.class_names, data)
    fabric = fabric_for(config, size, context)
    dense, module = load_module(source), load_module(source)
    classifier(module, source.spec.arch)
    check_training(module, config.train)
    before = module_cost(dense, size)
    looked_at = partial(
        batches, preprocess=source.spec.preprocess, batch_size=2 * config.train.batch_size, reporter=reporter
    )
    with reporter.track("pruning"):
        sample = stratified_subset(data.train, config.gradient_images, config.seed)
        prune(module, looked_at(sample), size, config, reporter)
    spec = pruned_spec(module, source.spec.also_trained_on(data.trained_on()))
    after = module_cost(module.eval(), size)
    images, training = training_images(data, [spec.preprocess], config, fabric, reporter)
    trainer = make_trainer(module, spec, config, fabric, images, context)
    sample = stratified_subset(data.train, config.statistics_images, config.seed)
    trainer.refresh_statistics(looked_at(sample), len(sample))
    direct = trainer.measure()
    phases = config.train.completed(fits_pretrained(spec.arch, size), "all").schedule_of_phases(head_epochs=0)
    trainer.fit(phases, _objective(config, dense, trainer), "recover")
    training.report_skipped(reporter)
    pruning = {
        "criterion": config.criterion,
        "macs_before": before.macs,
        "macs_after": after.macs,
        "top1_before_recovery": direct["top1"],
        "layers": _layer_widths(module, spec.pruning or {}),
    }
    return trained_output(trainer, spec, data, context, {"pruning": pruning})


def prune(module: nn.Module, images: Iterable[Batch], size: int, config: Config, reporter: Reporter) -> None:
    """Remove channels of `module` in place until `config.ratio` of its multiply-adds is gone."""
    criterion = discover.load(CRITERIA, config.criterion, "pruning criterion")
    layer_macs = {layer.name: layer.macs for layer in module_cost(module, size).layers}
    module.requires_grad_(True)
    if criterion.NEEDS_GRADIENTS:
        accumulate_gradients(module, images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch-pruning warns of every parameter outside known layers
        graph, groups = find_groups(
            module, torch.zeros(1, 3, size, size), criterion.importance(), config.scope
        )
        saved = choose_widths(groups, layer_macs, config)
        remove_channels(graph, groups)
    module.zero_grad(set_to_none=True)
    if saved < config.ratio:
        reporter.warn(
            f"Pruning removed {saved:.0%} of the multiply-adds, not the {config.ratio:.0%} asked for: "
            f"nothing more may go with round_to={config.round_to}, min_width={config.min_width}, "
            f"max_layer_ratio={config.max_layer_ratio} and scope={config.scope}."
        )


def _objective(config: Config, dense: nn.Module, trainer: Trainer) -> Objective:
    """The dense network is the teacher of the pruned one."""
    return distillation(
        dense.to(trainer.fabric.device),
        kl_loss,
        trainer.label_loss(),
        config.distill_weight,
        config.temperature,
        trainer.fabric.autocast,
    )


def accumulate_gradients(module: nn.Module, images: Iterable[Batch]) -> None:
    """Fill `.grad` with the mean gradient of the cross-entropy over `images`."""
    module.eval()
    module.zero_grad(set_to_none=True)
    for batch in images:
        logits = module(torch.from_numpy(batch.pixels))
        F.cross_entropy(logits, torch.from_numpy(batch.labels)).backward()


def _layer_widths(module: nn.Module, widths: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """Name and output channels of every narrowed convolution, for the report."""
    layers = dict(module.named_modules())
    return [
        {"name": name, "out_channels": layer.out_channels}
        for name in widths
        if isinstance(layer := layers[name], nn.Conv2d)
    ]
