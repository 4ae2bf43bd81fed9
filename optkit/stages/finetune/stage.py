"""Fine-tuning."""

from __future__ import annotations

from optkit.core.types import Artifact, Context, Output
from optkit.models.build import fits_pretrained
from optkit.models.new import check_network, network_spec, new_network
from optkit.stages.base import (
    check_training,
    fabric_for,
    learning_data,
    make_trainer,
    trained_output,
    training_images,
)
from optkit.stages.finetune.config import Config
from optkit.train.config import PhaseConfig
from optkit.train.objectives import classification

LAST_BLOCKS = 2  # what learns by default where pretrained features fit


def check(config: Config) -> None:
    """The architecture exists, can get the head, and takes the size, weights, blocks and optimiser named."""
    check_training(check_network(config), config.train)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Head on cached features, then the chosen blocks; from scratch, everything at once."""
    reporter = context.reporter
    data = learning_data(config.data, config, reporter)
    spec = network_spec(config, data.class_names, data.listing.native_size, data.trained_on())
    size = spec.preprocess.size
    fabric = fabric_for(config, size, context)
    module, origin = new_network(config, spec, reporter)
    phases = plan_phases(config, origin != "scratch", fits_pretrained(config.arch, size))
    images, training = training_images(data, [spec.preprocess], config, fabric, reporter)
    trainer = make_trainer(module, spec, config, fabric, images, context)
    trainer.fit(phases, classification(trainer.label_loss()), "blocks")
    training.report_skipped(reporter)
    return trained_output(trainer, spec, data, context, {"weights": origin})


def plan_phases(config: Config, is_pretrained: bool, fits: bool) -> tuple[PhaseConfig, ...]:
    """From scratch everything learns at once, unless phases say otherwise: a random network has no features."""
    options = config.train.completed(is_pretrained and fits, LAST_BLOCKS)
    if is_pretrained or options.phases:
        return options.schedule_of_phases(config.head_epochs)
    return options.model_copy(update={"unfreeze": "all"}).schedule_of_phases(head_epochs=0)
