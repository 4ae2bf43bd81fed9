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
    """In every candidate its layers at the first batch size that it was timed at; returns the machine's ceilings.

    Where some run on a GPU and others do not, the ceilings returned are those of the first one's device.
    """
    timed = [one for one in candidates if one.computes and one.timings]
    limits: dict[str, Any] = {}
    with reporter.track("Layers", 2 * len(timed)) as task:
        for one in timed:
            if (device := _device(one)) not in limits:
                limits[device] = _ceilings(timed, device, config.threads, reporter)
            task.advance(note=f"ceilings of the {device}")
            _measure(one, limits[device], reporter)
            task.advance(note=one.name)
    first = next(iter(limits.values()), None)
    return first.row() if first else None


def _device(candidate: Candidate) -> str:
    return "cuda" if candidate.on_gpu else "cpu"


def _measure(candidate: Candidate, limits: Any, reporter: Reporter) -> None:
    batch = next(iter(candidate.timings))
    try:
        found = candidate.call("layers", candidate.runtime, batch, limits, RUNS)
    except OptkitError as error:
        candidate.not_measured["layers"] = reason(error)
        reporter.info(f"{candidate.name}: no times of layers: {reason(error)}")
        return
    whose = {"name": candidate.name, "key": candidate.artifact.key, "runtime": candidate.runtime}
    candidate.layers.append({**whose, "batch": batch, **found})


def _ceilings(candidates: list[Candidate], device: str, threads: int, reporter: Reporter) -> Any:
    """Measured in a process of its own, with the threads of the models; None, with a warning, when that fails."""
    precisions = tuple(dict.fromkeys(["fp32", *(one.artifact.precision.value for one in candidates)]))
    process = None
    try:
        process = Process()
        return process.call("ceilings", precisions, threads or machine.facts()["cores"], device, CEILING_S)
    except OptkitError as error:
        reporter.warn(f"The ceilings of the {device} were not measured: {reason(error)}")
        return None
    finally:
        if process:
            process.close()
