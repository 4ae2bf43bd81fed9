"""Distillation."""

from __future__ import annotations

from functools import partial

from torch import nn

from optkit.core import discover
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Context, Format, ModelSpec, Output
from optkit.data.base import Dataset
from optkit.data.load import check_classes, load_data
from optkit.data.loading import batches
from optkit.data.training import training_data
from optkit.measure.cost import module_cost
from optkit.models.build import check_arch, fits_pretrained, new_spec
from optkit.models.checkpoint import load_module, save_checkpoint
from optkit.models.weights import pretrained
from optkit.stages.distill.config import LOSSES, Config
from optkit.train.freezing import unfreeze
from optkit.train.loop import Phase, make_fabric
from optkit.train.objectives import distillation
from optkit.train.trainer import Trainer


def check(config: Config) -> None:
    """The architecture exists."""
    check_arch(config.arch)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """A given student goes on learning; a new one first gets a head, as in fine-tuning."""
    reporter = context.reporter
    data = load_data(config.data, reporter)
    teacher = next(iter(inputs["teacher"].values()))
    check_classes(teacher.spec.class_names, data)
    given = next(iter(inputs["student"].values()), None)
    spec = given.spec if given else _new_spec(config, data)
    check_classes(spec.class_names, data)
    fabric = make_fabric(config.train, spec.preprocess.size, config.seed)
    module, origin = _student(config, given, spec, reporter)
    fits = origin != "scratch" and fits_pretrained(spec.arch, spec.preprocess.size)
    options = config.train.completed(fits, "all")
    images = partial(
        batches, preprocess=spec.preprocess, batch_size=2 * options.batch_size, reporter=reporter
    )
    trainer = Trainer(module, options, fabric, partial(images, data.val), len(data.val), reporter)
    if given is None and origin != "scratch":
        trainer.fit_head(images(data.train), len(data.train), config.head_epochs)
    unfreeze(module, "all" if origin == "scratch" else options.unfreeze)
    training = training_data(
        data,
        [spec.preprocess, teacher.spec.preprocess],
        options.batch_size,
        options.crop,
        config.seed,
        options.workers,
    )
    loss = discover.load(LOSSES, config.loss, "distillation loss").loss
    teacher_module = load_module(teacher).to(fabric.device)
    objective = distillation(teacher_module, loss, config.distill_weight, config.temperature, fabric.autocast)
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


def _new_spec(config: Config, data: Dataset) -> ModelSpec:
    return new_spec(config.arch, data.class_names, config.size, data.listing.native_size, data.digest)


def _student(
    config: Config, given: Artifact | None, spec: ModelSpec, reporter: Reporter
) -> tuple[nn.Module, str]:
    if given is not None:
        return load_module(given), "artifact"
    return pretrained(config.arch, spec.num_classes, config.weights, reporter)
