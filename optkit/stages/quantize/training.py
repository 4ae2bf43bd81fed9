"""Short quantisation-aware training: a network learns, through its rounding, to answer as in FP32.

Gradients pass straight through the rounding (Bengio et al. 2013, arXiv 1308.3432, section 4); the teacher is the
same network in FP32 (Hinton et al. 2015, arXiv 1503.02531), so that labels are not needed. Batch normalisation is
folded into the weights already, and no range and no scale learns: nothing but weights and biases changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from optkit.core import machine
from optkit.core.types import Context, Preprocess
from optkit.data.base import Dataset
from optkit.data.config import AugmentConfig
from optkit.data.training import training_data
from optkit.graph.torch_module import GraphModule
from optkit.stages.quantize.config import Config
from optkit.train.checkpoints import Checkpoints, Progress
from optkit.train.config import TrainConfig
from optkit.train.engine import make_fabric
from optkit.train.loop import PhaseRun
from optkit.train.losses.kl import loss as kl_loss
from optkit.train.objectives import distillation
from optkit.train.phase import STATE, Phase, Run

BATCH = 16
TEMPERATURE = 4.0
MIN_CROP = 0.8  # ranges are those of whole images, and stay
BYTES = 16  # of one value while training: itself, rounded, its masks and its gradient
MEMORY_SHARE = 0.25


def learning_images(dataset: Dataset, aside: tuple[str, ...]) -> Dataset:
    """`dataset` without the training images named in `aside`, by which results are chosen and judged."""
    names = set(aside)
    kept = [index for index, name in enumerate(dataset.train.ids) if name not in names]
    return replace(dataset, train=dataset.train.subset(np.array(kept, np.int64)))


def train_student(
    student: GraphModule,
    teacher: GraphModule,
    key: str,
    dataset: Dataset,
    preprocess: Preprocess,
    config: Config,
    context: Context,
) -> str:
    """Train `student` in place to the answers of `teacher`, and say on how much.

    What a killed run left behind is taken up where it was made of the same student: `key` tells them apart.
    Diverged when the loss is no longer a number; UsageError when memory runs out image by image.
    """
    if not len(dataset.train):
        return "no training images but those that are held out"
    options = TrainConfig(
        batch_size=BATCH, precision="fp32", weight_decay=0.0, accumulate=_parts(student, preprocess.size)
    )
    data = training_data(
        dataset, [preprocess], BATCH, AugmentConfig(min_crop=MIN_CROP), config.seed, options.workers
    )
    fabric = make_fabric(options, preprocess.size, config.seed)
    folder = None if context.scratch is None else context.scratch / f"qat-{key[:16]}"
    checkpoints, progress = Checkpoints(folder, context.reporter), Progress(parts=options.accumulate)
    if (state := checkpoints.load(STATE)) is not None:
        progress = Progress(**state["progress"])
        student.load_state_dict(state["network"])
    teacher.to(fabric.device)
    phase = Phase(
        index=0,
        name="qat",
        epochs=config.qat_epochs,
        lr=config.qat_lr,
        steps=data.steps,
        batches=data.epoch,
        # All the weight is on the teacher: the loss of labels is never asked for.
        objective=distillation(teacher, kl_loss, functional.cross_entropy, 1.0, TEMPERATURE, fabric.autocast),
        evaluate=dict,  # only the file is ever measured
        is_final=True,
    )
    if progress.phase == phase.index:
        run = Run(student, options, fabric, context.reporter, checkpoints, progress, config.seed)
        PhaseRun(student, phase, run).fit()
    student.cpu()
    data.report_skipped(context.reporter)
    return f"{config.qat_epochs * data.steps} steps on {len(dataset.train)} images"


def _parts(student: GraphModule, size: int) -> int:
    """How many parts a batch is computed in, so that its activations take a share of the memory at most."""
    values = {student.input: torch.zeros(2, 3, size, size)}
    count = 0
    with torch.no_grad():
        for index, step in enumerate(student.steps):
            student.run(values, [index], frozenset({step.output}))
            count += values[step.output].numel()
    memory = machine.facts()["memory_bytes"]
    parts = 1
    while memory and parts < BATCH and count / 2 * BYTES * BATCH / parts > MEMORY_SHARE * memory:
        parts *= 2
    return parts
