"""Layers of every candidate, against what this machine can do at most."""

from __future__ import annotations

from typing import Any

from optkit.core import machine
from optkit.core.errors import OptkitError
from optkit.core.progress import Reporter
from optkit.stages.bench.candidate import Candidate, reason
from optkit.stages.bench.config import Config
from optkit.stages.bench.process import Process

CEILING_S = 1.5
RUNS = 30  # of each model, of which every layer's median counts


def measure_layers(candidates: list[Candidate], config: Config, reporter: Reporter) -> dict[str, Any] | None:
    """The machine's ceilings, and in every candidate its layers at the first batch size that it was timed at."""
    timed = [one for one in candidates if one.computes and one.timings]
    with reporter.track("Layers", len(timed) + 1) as task:
        try:
            limits = _ceilings(timed, config.threads)
        except OptkitError as error:
            limits = None
            reporter.warn(f"The machine's ceilings were not measured: {reason(error)}")
        task.advance(note="ceilings of the machine")
        for one in timed:
            batch = next(iter(one.timings))
            try:
                found = one.call("layers", one.runtime, batch, limits, RUNS)
            except OptkitError as error:
                one.not_measured["layers"] = reason(error)
                reporter.info(f"{one.name}: no times of layers: {reason(error)}")
            else:
                key = one.artifact.key
                one.layers.append(
                    {"name": one.name, "key": key, "runtime": one.runtime, "batch": batch, **found}
                )
            task.advance(note=one.name)
    return limits.row() if limits else None


def _ceilings(candidates: list[Candidate], threads: int) -> Any:
    """Measured in a process of its own, with the threads of the models."""
    precisions = tuple(dict.fromkeys(["fp32", *(one.artifact.precision.value for one in candidates)]))
    on_gpu = any(one.on_gpu for one in candidates)
    process = Process()
    try:
        cores = threads or machine.facts()["cores"]
        return process.call("ceilings", precisions, cores, "cuda" if on_gpu else "cpu", CEILING_S)
    finally:
        process.close()
