"""Time and memory of plain calibration, every calibrator in turns with NNCF's default."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from int8_parts import files, peers
from int8_parts.case import ORT, Case
from int8_parts.demands import Demand, demand
from int8_parts.evaluate import Figure, mean, ratio
from int8_parts.processes import Failed, measured
from optkit.core import discover
from optkit.stages.quantize.config import CALIBRATORS

MANY = 10  # times the calibration images, for the memory that must not grow


@dataclass
class Series:
    """A tool's runs, one a round: seconds of the whole command and of its work alone, and peak memory in MB.

    `above_mb` is that above what `optkit quantize` holds before it calibrates: optkit's runs alone have it.
    `error` of the first run that failed; there is no other then.
    """

    seconds: list[float] = field(default_factory=list)
    work_seconds: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    above_mb: list[float] = field(default_factory=list)
    many_seconds: float | None = None
    many_mb: float | None = None
    error: str = ""


def measure_calibration(case: Case) -> tuple[list[Demand], dict[str, Any]]:
    """The demands, and all raw figures."""
    names = discover.names(CALIBRATORS)
    series = {name: Series() for name in (*names, peers.NNCF_DEFAULT.name)}
    loaded = []
    for number in range(case.options.calibration_rounds):
        case.options.report(f"calibration: round {number + 1} of {case.options.calibration_rounds}")
        loaded.append(_loaded_mb(case))
        for name in list(series)[:: -1 if number % 2 else 1]:
            if not series[name].error:
                _run(case, name, series[name], loaded[-1])
    _run_many(case, {name: series[name] for name in names if not series[name].error})
    demands = [one for name in names for one in _demands(name, series[name], series[peers.NNCF_DEFAULT.name])]
    facts = {"loaded_mb": loaded, **{name: one.__dict__ for name, one in series.items()}}
    return demands, facts


def _run(case: Case, name: str, series: Series, loaded_mb: float) -> None:
    try:
        if name == peers.NNCF_DEFAULT.name:
            out, environments = case.folder / "nncf.onnx", case.options.environments
            run, work = peers.quantise(
                peers.NNCF_DEFAULT, environments, case.fp32.file, case.calibration, out
            )
        else:
            made = files.quantise(case.fp32.file, case.images, _words(name), case.folder / name)
            run, work = made.run, made.stage_seconds
            series.above_mb.append(run.peak_bytes / 1e6 - loaded_mb)
    except Failed as error:
        series.error = str(error)
        case.options.report(f"calibration: {name} FAILED: {error}")
        return
    series.seconds.append(run.seconds)
    series.work_seconds.append(work)
    series.peak_mb.append(run.peak_bytes / 1e6)


def _run_many(case: Case, series: dict[str, Series]) -> None:
    """Each calibrator once with ten copies of every photo."""
    many = files.Images(files.repeated(case.images.path, case.folder / "many", MANY), case.images.val)
    for name, one in series.items():
        case.options.report(f"calibration: {name}, {MANY} times the photos")
        words = [*_words(name), "--calibration-images", str(MANY * files.CALIBRATION_IMAGES)]
        try:
            run = files.quantise(case.fp32.file, many, words, case.folder / f"many-{name}").run
        except Failed as error:
            case.options.report(f"calibration: {name} FAILED: {error}")
            continue
        one.many_seconds, one.many_mb = run.seconds, run.peak_bytes / 1e6


def _demands(name: str, own: Series, nncf: Series) -> list[Demand]:
    time: Figure | None = None
    above: Figure | None = None
    faster: Figure | None = None
    growth: float | None = None
    note = own.error or nncf.error
    if not own.error:
        time, above = mean(np.array(own.seconds)), mean(np.array(own.above_mb))
        growth = _over(own.many_mb, float(np.mean(own.peak_mb)))
        if not nncf.error:
            faster = ratio(np.array(nncf.seconds), np.array(own.seconds))
            alone = np.mean(nncf.work_seconds) / np.mean(own.work_seconds)
            note = f"NNCF {np.mean(nncf.seconds):.1f} s; without start and imports of both {alone:.2f}"
    work = f"the stage alone {np.mean(own.work_seconds):.1f} s" if own.work_seconds else own.error
    many = "" if own.many_mb is None else f"{own.many_mb:.0f} MB in {own.many_seconds:.0f} s"
    return [
        demand(3, f"{name}: whole command with 300 photos", ("≤", 8, "s"), time, work),
        demand(3, f"{name}: memory above the loaded model", ("≤", 300, "MB"), above),
        demand(3, f"{name}: NNCF's time over ours", ("≥", 2, ""), faster, note),
        demand(
            3, f"{name}: peak with {MANY} times the photos over that with 300", ("≤", 1.1, ""), growth, many
        ),
    ]


def _over(value: float | None, base: float) -> float | None:
    """`value` / `base`, None of None."""
    return None if value is None else value / base


def _words(calibrator: str) -> list[str]:
    return ["--target", ORT, "--calibrator", calibrator]


def _loaded_mb(case: Case) -> float:
    command = [sys.executable, str(Path(__file__).parent / "baseline.py"), str(case.fp32.file)]
    return measured(command).peak_bytes / 1e6
