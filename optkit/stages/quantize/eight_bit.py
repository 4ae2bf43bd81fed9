"""INT8 and FP8: ranges from calibration images, Q/DQ pairs where the target wants them, and the ladder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from optkit.core import discover
from optkit.core.errors import InputError
from optkit.core.progress import Reporter
from optkit.core.types import Context, ModelSpec
from optkit.data.base import Dataset, ImageSet
from optkit.data.calibration import CalibrationSet
from optkit.data.loading import batches, resize_few
from optkit.data.sampling import stratified_subset
from optkit.graph.onnx_file import ClassifierIO
from optkit.graph.qdq import Grid, QdqPlan, summary
from optkit.graph.qdq_view import GraphView
from optkit.measure.classes import map_classes
from optkit.measure.latency import Stopwatch
from optkit.stages.quantize.budget import Checked, checker
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.choose import choose_calibrator, find_ranges
from optkit.stages.quantize.config import AUTO, CALIBRATORS, PLACEMENTS, Config
from optkit.stages.quantize.execute import Pixels
from optkit.stages.quantize.observe import observe

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

    def pixels(self, images: ImageSet, config: Config, reporter: Reporter) -> Iterator[Pixels]:
        """Batches of `images` as the model sees them."""
        size = self.io.batch or config.calibration_batch
        for batch in batches(images, self.spec.preprocess, size, reporter, resize_few):
            yield batch.pixels


@dataclass(frozen=True)
class Shares:
    """The calibration images: to fit to, to choose by and to judge by."""

    fit: ImageSet
    choosing: ImageSet
    held: ImageSet


def quantize(source: Source, config: Config, context: Context) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The quantised file, and what the manifest tells of how it came to be."""
    check = validation_checker(source, config, context.reporter) if config.climbs else None
    watch = Stopwatch()
    shares = _split(source.calibration.images, config)
    candidate, details = calibrate(source, shares, config, context.reporter)
    if check is not None:
        # Imported here: plain calibration needs nothing of what trains, which takes seconds to import.
        from optkit.stages.quantize.climb import climb

        candidate, climbed = climb(source, shares, candidate, check, config, watch.seconds(), context)
        details |= climbed
    return candidate.build(), details | summary(source.model, candidate.plan)


def calibrate(
    source: Source, shares: Shares, config: Config, reporter: Reporter
) -> tuple[Candidate, dict[str, Any]]:
    """Ranges by the wanted calibrator, or by the one that does best on the images to choose by."""
    planned = _plan(source, config)
    calibrator = MINMAX if planned.grid.float8 else config.calibrator
    tries, tried = calibrator == AUTO, {}
    wanted = tries or config.climbs or discover.load(CALIBRATORS, calibrator, "calibrator").HISTOGRAM
    with reporter.track("calibrating", len(shares.fit)) as task:
        pixels = source.pixels(shares.fit, config, reporter)
        observed = observe(source.model, source.io, planned.observed(), pixels, wanted, task)
    if tries:
        trial = list(source.pixels(shares.choosing, config, reporter))
        calibrator, tried = choose_calibrator(source.model, source.io, planned, observed, trial, reporter)
    ranges = find_ranges(calibrator, GraphView(source.model), planned, observed)
    details = {"target": config.target, "calibrator": calibrator, "sqnr_db_of_calibrators": tried}
    return Candidate(source.model, planned, observed, calibrator, ranges), details


def _plan(source: Source, config: Config) -> QdqPlan:
    planned: QdqPlan = discover.load(PLACEMENTS, config.target, "target").plan(GraphView(source.model))
    if not planned.nodes:
        raise InputError(
            "Nothing in the ONNX file can be quantised.",
            why=f"The target {config.target!r} would leave every operator in floating point.",
            hint="Export the model again, with its weights as constants.",
        )
    if config.precision == "fp8":
        planned.grid = Grid(symmetric=True, float8=True)
    return planned


def _split(images: ImageSet, config: Config) -> Shares:
    """Some images to choose by and, for the ladder, others to judge by; shuffled, as images come class by class."""
    count = len(images)
    order = np.random.default_rng(config.seed).permutation(count)
    everything = images.subset(order)
    if not config.climbs and (config.calibrator != AUTO or config.precision == "fp8"):
        return Shares(everything, everything, everything)
    choosing = max(1, min(TRIAL_IMAGES, count // 8))
    held = max(2, min(TRIAL_IMAGES, count // 6)) if config.climbs else 0
    if count < 2 * (choosing + held):  # the few images have to do for everything
        return Shares(everything, everything, everything)
    chosen, judged, fit = np.split(order, [choosing, choosing + held])
    return Shares(*(images.subset(part) for part in (fit, chosen, judged)))


def validation_checker(
    source: Source, config: Config, reporter: Reporter
) -> Callable[[onnx.ModelProto], Checked]:
    """Compares files with FP32 on validation images; without their labels where these are not the model's."""
    spec = source.spec
    images = stratified_subset(source.dataset.val, config.check_images, config.seed)
    if not len(images):
        raise InputError(
            "There is no image to validate on.",
            why="Every class has one image only.",
            hint="Add images, or give validation images with --val.",
        )
    names: tuple[str, ...] | None = spec.class_names
    try:
        map_classes(images.class_names, spec.class_names)
    except InputError:
        if config.max_drop is not None:
            raise
        names = None
    return checker(source.model, source.io, images, names, spec.preprocess, reporter)
