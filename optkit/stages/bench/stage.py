"""Bench: models side by side, in the runtimes that will execute them, each in a process of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from optkit.core.errors import MissingError
from optkit.core.names import short_names
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Context, Output
from optkit.measure.latency import Stopwatch
from optkit.measure.telemetry import Telemetry, warnings
from optkit.runtimes.base import computes, runtimes_for
from optkit.stages.bench.candidate import INTERRUPTED, Candidate, Findings, alive, reason
from optkit.stages.bench.config import Config
from optkit.stages.bench.counted import count_modules
from optkit.stages.bench.device_times import measure_parts
from optkit.stages.bench.process import CrashedError
from optkit.stages.bench.roofline import measure_layers
from optkit.stages.bench.rounds import Rounds, start_all, wait_all


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Open every model, time them in turns, measure accuracy one after the other, and make the rows."""
    models, reporter = inputs["models"], context.reporter
    candidates, found, watch = _candidates(models, config.runtimes), Findings(), Stopwatch()
    with _interruptible(candidates, found, reporter):
        start_all(candidates, config.threads)
        # Numpy is imported here while the processes open their models.
        from optkit.stages.bench.result import result

        with Telemetry() as telemetry:
            opened = _opened(candidates, reporter)
            found.began = datetime.now(UTC).isoformat()
            _measure(opened, models, config, context, found)
    with _undisturbed():
        _explain_gaps(candidates, config)
        _tell_of_crashes(candidates, reporter)
        trace = telemetry.trace()
        for text in warnings(trace):
            reporter.warn(text)
        given = {short: name for name, short in short_names(list(models)).items()}
        return result(candidates, config, found, {"models": given, "trace": trace}, watch)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C is ignored: what was measured is only put together, in a second or two."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _measure(
    candidates: list[Candidate],
    models: dict[str, Artifact],
    config: Config,
    context: Context,
    found: Findings,
) -> None:
    """Everything that was asked for, what is quick first: an interruption keeps what is done."""
    images = None
    if config.data:
        # Torch and what reads images are imported only where they are needed.
        from optkit.stages.bench.accuracy import check_classes, evaluation_images, measure_accuracies
        from optkit.stages.bench.flips import flips

        images = evaluation_images(config, models, context.reporter)
        check_classes([one for one in candidates if one.computes], images)
    rounds = Rounds(config, context.reporter)
    rounds.measure(candidates)
    if "offline" in config.loads:
        rounds.measure_offline(alive(candidates))
    if config.latency_bound_ms is not None:
        from optkit.stages.bench.server import measure_server

        measure_server(alive(candidates), config.latency_bound_ms, config.seed, context.reporter)
    measure_parts(candidates, config, context.reporter)
    if config.layers:
        found.roofline = measure_layers(alive(candidates), config, context.reporter)
    if images is not None:
        measure_accuracies(candidates, images, context.reporter)
        measured = [one for one in candidates if one.accuracy]
        changes = [flips(one, measured[0], images, context.workdir) for one in measured[1:]]
        found.flips = [change for change in changes if change]
    count_modules(candidates)


@contextmanager
def _interruptible(candidates: list[Candidate], found: Findings, reporter: Reporter) -> Iterator[None]:
    """Ends the processes; Ctrl-C ends the measuring and keeps what there is, once something was timed."""
    try:
        yield
    except KeyboardInterrupt:
        if not any(timing.rounds for one in candidates for timing in one.timings.values()):
            raise
        found.interrupted = True
        reporter.warn("INTERRUPTED: these are the results so far; not all that was asked for was measured.")
    finally:
        for candidate in candidates:
            candidate.stop()


def _candidates(models: dict[str, Artifact], runtimes: tuple[str, ...]) -> list[Candidate]:
    """Every model in every wanted runtime that executes its format; in its default one where none does."""
    short = short_names(list(models))
    return [
        Candidate(short[name], artifact, runtime, computes=computes(runtime))
        for name, artifact in models.items()
        for runtime in runtimes_for(artifact.format, runtimes)
    ]


def _opened(candidates: list[Candidate], reporter: Reporter) -> list[Candidate]:
    """Those that can be executed here; raises when none can, warns of the others."""
    wait_all(candidates)
    opened = [candidate for candidate in candidates if candidate.process]
    if not opened:
        errors = [candidate.error for candidate in candidates if candidate.error]
        raise next((error for error in errors if not isinstance(error, MissingError)), errors[0])
    for candidate in candidates:
        if isinstance(candidate.error, MissingError):
            reporter.info(f"{candidate.name} is not executed: {reason(candidate.error)}")
        elif candidate.error and not candidate.failed:
            reporter.warn(f"{candidate.name} could not be executed: {reason(candidate.error)}")
    return opened


def _explain_gaps(candidates: list[Candidate], config: Config) -> None:
    """What was asked for and is not there, was not reached: the process had died, or Ctrl-C came before."""
    asked = (*config.loads, *(["top1"] if config.data else []))
    for candidate in candidates:
        for name in asked:
            candidate.not_measured.setdefault(
                name, reason(candidate.error) if candidate.error else INTERRUPTED
            )


def _tell_of_crashes(candidates: list[Candidate], reporter: Reporter) -> None:
    for candidate in candidates:
        if candidate.failed and candidate.error:
            how = "CRASHED" if isinstance(candidate.error, CrashedError) else "could not go on"
            reporter.warn(f"{candidate.name} in {candidate.runtime} {how}: {reason(candidate.error)}")
