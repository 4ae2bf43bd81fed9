"""Bench: models side by side, in the runtimes that will execute them."""

from __future__ import annotations

from optkit.core import discover
from optkit.core.errors import MissingError, OptkitError
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Context, Format, Output
from optkit.data.base import ImageSet
from optkit.data.config import DataConfig
from optkit.data.load import load_data
from optkit.data.sampling import stratified_subset
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import DEFAULTS, PACKAGE, SessionOptions, open_artifact
from optkit.stages.bench.candidate import Candidate, reason
from optkit.stages.bench.config import Config
from optkit.stages.bench.measuring import measure_accuracies, measure_latencies
from optkit.stages.bench.rows import measurements, row


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Open every model, measure accuracy one after the other and latency in turns, and make the rows."""
    models, reporter = inputs["models"], context.reporter
    candidates = _candidates(models, config.runtimes)
    try:
        opened = _open(candidates, config.threads, reporter)
        if config.data:
            images = _images(config.data, models, reporter)
            if config.max_images:
                images = stratified_subset(images, config.max_images, config.seed)
            measure_accuracies(opened, images, reporter)
        for batch in config.batch_sizes:
            measure_latencies(opened, batch, config.seconds, config.seed, reporter)
        baseline = next((one for one in opened if one.accuracy), None)
        rows = [row(one, batch, baseline) for one in candidates for batch in config.batch_sizes]
        samples = [found for one in candidates for found in measurements(one, config.batch_sizes)]
    finally:
        for candidate in candidates:
            if candidate.session:
                candidate.session.close()
    return Output(format=Format.RESULT, measurements=tuple(samples), details={"rows": rows})


def _candidates(models: dict[str, Artifact], runtimes: tuple[str, ...]) -> list[Candidate]:
    """Every model in every wanted runtime that executes its format; in its default one where none does."""
    modules = {name: discover.load(PACKAGE, name, "runtime") for name in runtimes}
    return [
        Candidate(name, artifact, runtime, computes=getattr(modules.get(runtime), "COMPUTES", True))
        for name, artifact in models.items()
        for runtime in [one for one in runtimes if artifact.format in modules[one].FORMATS]
        or [DEFAULTS[artifact.format]]
    ]


def _open(candidates: list[Candidate], threads: int, reporter: Reporter) -> list[Candidate]:
    """Those that can be executed here; raises when none can, warns of the others."""
    options = SessionOptions(load_module=load_module, threads=threads, needs_answers=False)
    for candidate in candidates:
        try:
            candidate.session = open_artifact(candidate.artifact, candidate.runtime, options)
        except OptkitError as error:
            candidate.error = error
    opened = [candidate for candidate in candidates if candidate.session]
    if not opened:
        errors = [candidate.error for candidate in candidates if candidate.error]
        raise next((error for error in errors if not isinstance(error, MissingError)), errors[0])
    for candidate in candidates:
        if isinstance(candidate.error, MissingError):
            reporter.info(f"{candidate.name} is not executed: {reason(candidate.error)}")
        elif candidate.error:
            reporter.warn(f"{candidate.name} could not be executed: {reason(candidate.error)}")
    return opened


def _images(config: DataConfig, models: dict[str, Artifact], reporter: Reporter) -> ImageSet:
    """Images that none of the models was trained on."""
    data = load_data(config, reporter)
    trained = [images for artifact in models.values() for images in artifact.spec.trained_on]
    return data.evaluation_images(trained, reporter)
