"""Distillation."""

from __future__ import annotations

from functools import partial

from lightning_fabric import Fabric
from torch import nn

from optkit.core import discover
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Context, Format, ModelSpec, Output
from optkit.data.base import Dataset
from optkit.data.load import check_classes, load_data
from optkit.data.loading import batches
from optkit.data.training import training_data
from optkit.measure.cost import module_cost
from optkit.models.build import build, check_size, classifier, fits_pretrained, new_spec
from optkit.models.checkpoint import load_module, save_checkpoint
from optkit.models.weights import check_weights, pretrained
from optkit.stages.distill.config import LOSSES, Config
from optkit.train.freezing import unfreeze
from optkit.train.loop import Phase, make_fabric
from optkit.train.objectives import Objective, distillation
from optkit.train.trainer import Trainer


def check(config: Config) -> None:
    """The architecture exists, can get a new head, and takes the size and weights that are named."""
    module = build(config.arch, num_classes=2)
    classifier(module, config.arch)
    check_weights(module, config.arch, config.weights)
    if config.size is not None:
        check_size(module, config.arch, config.size)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """A given student goes on learning; a new one first gets a head, as in fine-tuning."""
    reporter = context.reporter
    data = load_data(config.data, reporter)
    teacher = next(iter(inputs["teacher"].values()))
    check_classes(teacher.spec.class_names, data)
    given = next(iter(inputs["student"].values()), None)
    spec = given.spec.also_trained_on(data.trained_on()) if given else _new_spec(config, data)
    check_classes(spec.class_names, data)
    fabric = make_fabric(config.train, spec.preprocess.size, config.seed)
    module, origin = _student(config, given, spec, reporter)
    fits = origin != "scratch" and fits_pretrained(spec.arch, spec.preprocess.size)
    options = config.train.completed(fits, "all")
    images = partial(
        batches, preprocess=spec.preprocess, batch_size=2 * options.batch_size, reporter=reporter
    )
    trainer = Trainer(module, options, fabric, partial(images, data.val), len(data.val), reporter)
    unfreeze(module, "all" if origin == "scratch" else options.unfreeze)
    if given is None and origin != "scratch":
        trainer.fit_head(images(data.train), len(data.train), config.head_epochs)
    training = training_data(
        data,
        [spec.preprocess, teacher.spec.preprocess],
        options.batch_size,
        options.crop,
        config.seed,
        options.workers,
    )
    objective = _objective(config, load_module(teacher), fabric)
    trainer.fit(Phase("distill", options, training.steps, training.epoch, objective))
    metrics = trainer.finish()
    training.report_skipped(reporter)
    cost = module_cost(module, spec.preprocess.size)
    save_checkpoint(module, spec, context.workdir / Format.TORCH.filename)
    return Output(
        format=Format.TORCH,
        spec=spec,
        metrics=metrics | cost.metrics(),
        history=trainer.history,
        details={"data": data.summary(), "weights": origin, "teacher": teacher.spec.arch},
    )


def _objective(config: Config, teacher: nn.Module, fabric: Fabric) -> Objective:
    return distillation(
        teacher.to(fabric.device),
        discover.load(LOSSES, config.loss, "distillation loss").loss,
        config.distill_weight,
        config.temperature,
        config.train.label_smoothing,
        fabric.autocast,
    )


def _new_spec(config: Config, data: Dataset) -> ModelSpec:
    return new_spec(
        config.arch, data.class_names, config.size, data.listing.native_size, (data.trained_on(),)
    )


def _student(
    config: Config, given: Artifact | None, spec: ModelSpec, reporter: Reporter
) -> tuple[nn.Module, str]:
    if given is not None:
        module = load_module(given)
        classifier(module, spec.arch)
        return module, "artifact"
    module, origin = pretrained(config.arch, spec.num_classes, config.weights, reporter)
    check_size(module, spec.arch, spec.preprocess.size)
    return module, origin
