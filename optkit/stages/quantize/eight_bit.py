"""INT8 and FP8: ranges from calibration images, Q/DQ pairs where the target wants them, and the ladder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core import discover
from optkit.core.errors import InputError, UsageError
from optkit.core.progress import Reporter
from optkit.core.types import Context, ModelSpec
from optkit.data.base import Dataset, ImageSet
from optkit.data.calibration import CalibrationSet
from optkit.data.loading import batches
from optkit.data.sampling import stratified_subset
from optkit.graph.onnx_file import ClassifierIO
from optkit.graph.qdq import Grid, QdqPlan, summary
from optkit.graph.qdq_view import GraphView
from optkit.measure.accuracy import map_classes
from optkit.stages.quantize.budget import checker, limits
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.choose import choose_calibrator, find_ranges
from optkit.stages.quantize.config import AUTO, CALIBRATORS, PLACEMENTS, Config
from optkit.stages.quantize.ladder import Ladder
from optkit.stages.quantize.observe import observe
from optkit.stages.quantize.sensitivity import sensitivity
from optkit.stages.quantize.training import learning_images, train_student
from optkit.stages.quantize.workbench import Workbench, run_model

MINMAX = "minmax"
TRIAL_IMAGES = 48  # enough to tell calibrators apart, and little memory


@dataclass(frozen=True)
class Source:
    """The prepared FP32 classifier and the images that it is quantised with."""

    model: onnx.ModelProto
    io: ClassifierIO
    spec: ModelSpec
    dataset: Dataset
    calibration: CalibrationSet

    def pixels(
        self, images: ImageSet, config: Config, reporter: Reporter, used: list[int] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Batches of `images` as the model sees them; `used` takes the indices of those that could be read."""
        size = self.io.batch or config.calibration_batch
        for batch in batches(images, self.spec.preprocess, size, reporter):
            if used is not None:
                used.extend(batch.indices.tolist())
            yield batch.pixels


def quantize(source: Source, config: Config, context: Context) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The quantised file, and what the manifest tells of how it came to be."""
    reporter = context.reporter
    planned = _plan(source, config)
    tries = config.calibrator == AUTO and not planned.grid.float8
    images = source.calibration.images
    fitted, held = _split(images) if tries or config.climbs else (images, images)
    used: list[int] = []
    pixels: Iterator[NDArray[np.float32]] | list[NDArray[np.float32]]
    pixels = source.pixels(fitted, config, reporter, used)
    if config.climbs:  # the ladder looks at them again and again
        pixels = list(pixels)
    histograms = tries or config.climbs or _needs_histogram(config, planned)
    with reporter.track("calibrating", len(fitted)) as task:
        observed = observe(source.model, source.io, planned.observed(), pixels, histograms, task)
    calibrator, tried = MINMAX if planned.grid.float8 else config.calibrator, {}
    held_pixels = list(source.pixels(held, config, reporter)) if tries or config.climbs else []
    if tries:
        calibrator, tried = choose_calibrator(
            source.model, source.io, planned, observed, held_pixels, reporter
        )
    ranges = find_ranges(calibrator, GraphView(source.model), planned, observed)
    candidate = Candidate(source.model, planned, observed, calibrator, ranges)
    details: dict[str, Any] = {
        "target": config.target,
        "calibrator": calibrator,
        "sqnr_db_of_calibrators": tried,
        "images": len(used),
    }
    if isinstance(pixels, list):
        reference = run_model(source.model, source.io, held_pixels)
        train = partial(
            train_student,
            dataset=learning_images(source.dataset, held),
            preprocess=source.spec.preprocess,
            config=config,
            context=context,
        )
        bench = Workbench(source.io, pixels, held_pixels, reference, reporter, train)
        candidate, climbed = _climb(source, candidate, bench, config)
        details |= climbed
    return candidate.build(), details | summary(source.model, candidate.plan)


def _plan(source: Source, config: Config) -> QdqPlan:
    planned: QdqPlan = discover.load(PLACEMENTS, config.target, "target").plan(GraphView(source.model))
    if not planned.nodes:
        raise InputError(
            "Nothing in the ONNX file can be quantised.",
            why=f"The target {config.target!r} would leave every operator in floating point.",
            hint="Export the model again, with its weights as constants.",
        )
    if config.precision == "fp8":
        if config.calibrator not in (AUTO, MINMAX):
            raise UsageError(
                f"The calibrator {config.calibrator!r} is for INT8.",
                why="The codes of FP8 are not evenly spaced: clipping gains nothing.",
                hint=f"Use --calibrator {MINMAX}.",
            )
        planned.grid = Grid(symmetric=True, float8=True)
    return planned


def _needs_histogram(config: Config, planned: QdqPlan) -> bool:
    if planned.grid.float8:
        return False
    return bool(discover.load(CALIBRATORS, config.calibrator, "calibrator").HISTOGRAM)


def _split(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Images to fit to, and at most TRIAL_IMAGES others to judge by."""
    count = max(1, min(TRIAL_IMAGES, len(images) // 8))
    if len(images) < 2 * count:  # a single image has to do for both
        return images, images
    trial = np.linspace(0, len(images) - 1, count).astype(np.int64)
    return images.subset(np.setdiff1d(np.arange(len(images)), trial)), images.subset(trial)


def _comparable_classes(images: ImageSet, spec: ModelSpec, config: Config) -> tuple[str, ...] | None:
    """The model's classes, None when those of `images` are others: a limit of agreement or SQNR needs no labels."""
    try:
        map_classes(images.class_names, spec.class_names)
    except InputError:
        if config.max_drop is not None:
            raise
        return None
    return spec.class_names


def _climb(
    source: Source, candidate: Candidate, bench: Workbench, config: Config
) -> tuple[Candidate, dict[str, Any]]:
    reporter = bench.reporter
    images = stratified_subset(source.dataset.val, config.check_images, config.seed)
    spec = source.spec
    names = _comparable_classes(images, spec, config)
    check = checker(source.model, source.io, images, names, spec.preprocess, reporter)
    ladder = Ladder(candidate, bench, config, check)
    ladder.climb()
    budget = {**limits(config), "held": ladder.held} if config.has_budget else None
    if budget and not ladder.held:
        reporter.warn(
            "THE BUDGET DOES NOT HOLD: the best that the ladder reached is kept. "
            "`optkit report` shows what every rung bought."
        )
    details = {
        "ladder": ladder.entries,
        "budget": budget,
        "validation": ladder.checked.details() if ladder.checked else None,
        "sensitivity": sensitivity(ladder.candidate, bench),
    }
    return ladder.candidate, details
