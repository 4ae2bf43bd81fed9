"""Climb the recovery ladder with the images that were set aside for it, and tell what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import onnx

from optkit.core.types import Context
from optkit.data.base import ImageSet
from optkit.stages.quantize.budget import Checked, limits
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.config import Config
from optkit.stages.quantize.eight_bit import Shares, Source
from optkit.stages.quantize.execute import run_model
from optkit.stages.quantize.float_prefix import choose_float_prefix
from optkit.stages.quantize.ladder import Ladder
from optkit.stages.quantize.speed import compare_speed, why_slower
from optkit.stages.quantize.training import learning_images, train_student
from optkit.stages.quantize.workbench import Judged, Workbench

FIT_IMAGES = 128  # kept in memory, 77 MB at 224 px
FIT_SIZE = 224


def climb(
    source: Source,
    shares: Shares,
    candidate: Candidate,
    check: Callable[[onnx.ModelProto], Checked],
    config: Config,
    calibration_seconds: float,
    context: Context,
) -> tuple[Candidate, dict[str, Any]]:
    """The best candidate that the ladder reached, and what the manifest tells of it.

    FailedError before it is climbed, when INT8 is surely slower than FP32 and that is not allowed.
    """
    reporter, prefixes = context.reporter, None
    if not config.allow_slower:
        candidate, prefixes = choose_float_prefix(candidate, source.io, source.spec, config.target, context)
    compare = partial(compare_speed, source.model, spec=source.spec, target=config.target, reporter=reporter)
    bench = _workbench(source, shares, config, context)
    ladder = Ladder(
        candidate,
        bench,
        config,
        check,
        why_slower=lambda file: "" if config.allow_slower else why_slower(compare(file)),
        calibration_seconds=calibration_seconds,
    )
    ladder.climb()
    budget = {**limits(config), "held": ladder.held} if config.has_budget else None
    if budget and not ladder.held:
        reporter.warn(
            "THE BUDGET DOES NOT HOLD: the best that the ladder reached is kept. The ladder's table shows what "
            "every rung bought."
        )
    best = ladder.candidate
    if slower := why_slower(speed := compare(best.build())):
        reporter.warn(slower)
    details = {
        "held_images": len(shares.held),
        "set_aside": shares.held is not shares.fit,
        "ladder": ladder.entries,
        "budget": budget,
        "validation": ladder.checked and ladder.checked.details(),
        "sensitivity": [asdict(one) for one in bench.sensitivity(best)],
        "float_prefix": prefixes,
        "speed": speed,
    }
    return best, details


def _workbench(source: Source, shares: Shares, config: Config, context: Context) -> Workbench:
    reporter = context.reporter
    if shares.held is shares.fit:
        reporter.warn(
            f"{len(shares.fit)} calibration images are too few to judge by others than those that are fitted to: "
            "what seems to help may not. Give more."
        )

    def judged(images: ImageSet) -> Judged:
        pixels = list(source.pixels(images, config, reporter))
        return Judged(pixels, run_model(source.model, source.io, pixels))

    smaller = min(1.0, (FIT_SIZE / source.spec.preprocess.size) ** 2)
    first = shares.fit.subset(np.arange(min(len(shares.fit), round(FIT_IMAGES * smaller))))
    aside = (*shares.choosing.ids, *shares.held.ids)
    train = partial(
        train_student,
        dataset=learning_images(source.dataset, aside if shares.held is not shares.fit else ()),
        preprocess=source.spec.preprocess,
        config=config,
        context=context,
    )
    return Workbench(
        io=source.io,
        fit=list(source.pixels(first, config, reporter)),
        all_fit=partial(source.pixels, shares.fit, config, reporter),
        choosing=judged(shares.choosing),
        held=judged(shares.held),
        seed=config.seed,
        reporter=reporter,
        train=train,
    )
