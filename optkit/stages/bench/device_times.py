"""Copies and computation apart, by the device's own clock, where a session can tell."""

from __future__ import annotations

import statistics
from typing import Any

from optkit.core.errors import OptkitError
from optkit.core.progress import Reporter
from optkit.core.types import Measurement
from optkit.stages.bench.candidate import Candidate, Timing, reason
from optkit.stages.bench.config import Config

RUNS = 200


def measure_parts(candidates: list[Candidate], config: Config, reporter: Reporter) -> None:
    """With CUDA graphs off and on, and as `config.like` says; nothing for sessions on a CPU."""
    on_device = [one for one in candidates if one.process and one.on_gpu]
    if config.like and not on_device:
        reporter.warn(f"--like {config.like} times GPUs, and no model runs on one here.")
    for candidate in on_device:
        for batch, timing in candidate.timings.items():
            try:
                _measure(candidate, batch, timing)
                if config.like:
                    _measure_like(candidate, batch, timing, config.like, reporter)
            except OptkitError as error:
                candidate.not_measured[f"parts at batch {batch}"] = reason(error)


def _measure(candidate: Candidate, batch: int, timing: Timing) -> None:
    for cuda_graph in (False, True):
        found = candidate.call("profile", batch, RUNS, cuda_graph)
        timing.parts += _measurements(candidate, batch, found, {"cuda_graph": cuda_graph})


def _measure_like(candidate: Candidate, batch: int, timing: Timing, preset: str, reporter: Reporter) -> None:
    from optkit.runtimes.tensorrt import trtexec  # imports what only engines need

    found = candidate.call("profile_like", batch, preset)
    timing.parts += _measurements(candidate, batch, found, {"like": trtexec.defaults(preset).text})
    for text in trtexec.warnings(found) if found else ():
        reporter.warn(f"{candidate.name}: {text}")


def _measurements(
    candidate: Candidate, batch: int, parts: dict[str, list[float]], how: dict[str, Any]
) -> list[Measurement]:
    conditions = {**candidate.conditions(batch), **how}
    return [
        Measurement(name=f"{part}_ms", unit="ms", samples=tuple(samples), conditions=conditions)
        for part, samples in parts.items()
    ]


def part_rows(timing: Timing) -> list[dict[str, Any]]:
    """Medians of the parts, one row for each way that they were timed in."""
    rows: dict[str, dict[str, Any]] = {}
    for part in timing.parts:
        how = {name: part.conditions[name] for name in ("cuda_graph", "like") if name in part.conditions}
        rows.setdefault(str(how), dict(how))[part.name] = statistics.median(part.samples)
    return list(rows.values())
