"""Fine-tuning."""

from __future__ import annotations

from functools import partial

from optkit.core.types import Artifact, Context, Format, Output
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.data.training import training_data
from optkit.measure.cost import module_cost
from optkit.models.build import build, check_size, classifier, fits_pretrained, new_spec
from optkit.models.checkpoint import save_checkpoint
from optkit.models.weights import check_weights, pretrained
from optkit.stages.finetune.config import Config
from optkit.train.freezing import unfreeze
from optkit.train.loop import Phase, make_fabric
from optkit.train.objectives import classification
from optkit.train.trainer import Trainer

LAST_BLOCKS = 2  # what learns by default where pretrained features fit


def check(config: Config) -> None:
    """The architecture exists, can get a new head, and takes the size, weights and blocks that are named."""
    module = build(config.arch, num_classes=2)
    classifier(module, config.arch)
    check_weights(module, config.arch, config.weights)
    if isinstance(config.train.unfreeze, int):
        unfreeze(module, config.train.unfreeze)
    if config.size is not None:
        check_size(module, config.arch, config.size)


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Head on cached features, then the chosen blocks; from scratch, everything at once."""
    reporter = context.reporter
    data = load_data(config.data, reporter)
    spec = new_spec(
        config.arch, data.class_names, config.size, data.listing.native_size, (data.trained_on(),)
    )
    size = spec.preprocess.size
    fabric = make_fabric(config.train, size, config.seed)
    module, origin = pretrained(config.arch, spec.num_classes, config.weights, reporter)
    check_size(module, config.arch, size)
    fits = origin != "scratch" and fits_pretrained(config.arch, size)
    options = config.train.completed(fits, LAST_BLOCKS)
    images = partial(
        batches, preprocess=spec.preprocess, batch_size=2 * options.batch_size, reporter=reporter
    )
    training = training_data(
        data, [spec.preprocess], options.batch_size, options.crop, config.seed, options.workers
    )
    trainer = Trainer(module, options, fabric, partial(images, data.val), len(data.val), reporter)
    if origin != "scratch":
        trainer.fit_head(images(data.train), len(data.train), config.head_epochs)
    unfreeze(module, "all" if origin == "scratch" else options.unfreeze)
    objective = classification(options.label_smoothing)
    trainer.fit(Phase("blocks", options, training.steps, training.epoch, objective))
    metrics = trainer.finish()
    training.report_skipped(reporter)
    cost = module_cost(module, size)
    save_checkpoint(module, spec, context.workdir / Format.TORCH.filename)
    return Output(
        format=Format.TORCH,
        spec=spec,
        metrics=metrics | cost.metrics(),
        history=trainer.history,
        details={"data": data.summary(), "weights": origin},
    )
