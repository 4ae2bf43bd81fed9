"""Distillation."""

from __future__ import annotations

from torch import nn

from optkit.core import discover
from optkit.core.errors import UsageError
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Context, ModelSpec, Output
from optkit.data.base import Dataset
from optkit.data.load import check_classes
from optkit.models.build import classifier, fits_pretrained
from optkit.models.checkpoint import load_module
from optkit.models.new import check_network, network_spec, new_network
from optkit.stages.base import (
    check_training,
    fabric_for,
    learning_data,
    make_trainer,
    trained_output,
    training_images,
)
from optkit.stages.distill.config import LOSSES, Config
from optkit.train.config import PhaseConfig
from optkit.train.objectives import Objective, distillation
from optkit.train.optimisation import check_optimizer
from optkit.train.trainer import Trainer


def check(config: Config) -> None:
    """The architecture exists, can get the head, and takes the size, weights and optimiser named."""
    check_network(config)
    check_optimizer(config.train)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """A given student goes on learning; a new one first gets a head, as in fine-tuning."""
    reporter = context.reporter
    data = learning_data(config.data, config, reporter)
    teacher = next(iter(inputs["teacher"].values()))
    check_classes(teacher.spec.class_names, data)
    given = next(iter(inputs["student"].values()), None)
    if given and (config.head.spec() or config.drop_path):
        raise UsageError(
            "A student that is given keeps its head and its blocks.",
            hint="Leave out --drop-path and the options of the head, or name an architecture as the student.",
        )
    spec = given.spec.also_trained_on(data.trained_on()) if given else _new_spec(config, data)
    check_classes(spec.class_names, data)
    fabric = fabric_for(config, spec.preprocess.size, context)
    module, origin = _student(config, given, spec, reporter)
    check_training(module, config.train)
    preprocesses = [spec.preprocess, teacher.spec.preprocess]
    images, training = training_images(data, preprocesses, config, fabric, reporter)
    trainer = make_trainer(module, spec, config, fabric, images, context)
    objective = _objective(config, load_module(teacher), trainer)
    trainer.fit(
        plan_phases(config, origin, fits_pretrained(spec.arch, spec.preprocess.size)), objective, "distill"
    )
    training.report_skipped(reporter)
    return trained_output(trainer, spec, data, context, {"weights": origin, "teacher": teacher.spec.arch})


def plan_phases(config: Config, origin: str, fits: bool) -> tuple[PhaseConfig, ...]:
    """Only a new student with pretrained features gets a head first; by default everything learns then."""
    options = config.train.completed(origin != "scratch" and fits, "all")
    if origin == "scratch" and not options.phases:
        options = options.model_copy(update={"unfreeze": "all"})
    is_new = origin not in ("scratch", "artifact")
    return options.schedule_of_phases(config.head_epochs if is_new else 0)


def _objective(config: Config, teacher: nn.Module, trainer: Trainer) -> Objective:
    return distillation(
        teacher.to(trainer.fabric.device),
        discover.load(LOSSES, config.loss, "distillation loss").loss,
        trainer.label_loss(),
        config.distill_weight,
        config.temperature,
        trainer.fabric.autocast,
    )


def _new_spec(config: Config, data: Dataset) -> ModelSpec:
    return network_spec(config, data.class_names, data.listing.native_size, data.trained_on())


def _student(
    config: Config, given: Artifact | None, spec: ModelSpec, reporter: Reporter
) -> tuple[nn.Module, str]:
    if given is None:
        return new_network(config, spec, reporter)
    module = load_module(given)
    classifier(module, spec.arch)
    return module, "artifact"
