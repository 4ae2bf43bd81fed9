"""Which of several files is fastest on this machine: measured in turns, and compared round by round."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core import discover
from optkit.core.errors import OptkitError
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Precision
from optkit.graph.onnx_file import write_onnx
from optkit.measure.latency import Subject, measure_latency
from optkit.measure.statistics import t95
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import PACKAGE, Session, SessionOptions, open_artifact

RUNTIMES = ("onnxruntime", "openvino")  # of CPUs, and targets by the same names; an engine needs its GPU
ROUNDS = 10
SECONDS = 0.07  # of each file, in each round


@dataclass(frozen=True)
class File:
    """A model, and the runtime that is to execute it."""

    model: onnx.ModelProto
    precision: Precision
    runtime: str


@dataclass(frozen=True)
class Ratio:
    """A latency over another, with its 95 % interval."""

    value: float
    low: float
    high: float


def cpu_runtimes() -> list[str]:
    """Those that are installed."""
    return [name for name in RUNTIMES if discover.load(PACKAGE, name, "runtime").unavailable() is None]


def compare_speed(
    fp32: onnx.ModelProto,
    int8: onnx.ModelProto,
    spec: ModelSpec,
    target: str,
    reporter: Reporter,
) -> dict[str, Any] | None:
    """Latencies in ms of one batch, and their ratio INT8 / FP32 with its 95 % interval.

    INT8 runs in the target's runtime, FP32 in every one that is here, as the user may choose too: the fastest counts.
    None for engines, and where the runtime is missing or refuses a file.
    """
    if target not in RUNTIMES:
        return None
    here = cpu_runtimes()
    if target not in here:
        reporter.info(f"Not timed against FP32: {target} is not installed.")
        return None
    files = [*(File(fp32, Precision.FP32, runtime) for runtime in here), File(int8, Precision.INT8, target)]
    try:
        with open_files(files, spec) as sessions:
            rounds = time_rounds(sessions, spec, ROUNDS, reporter)
            return against_fp32(rounds, here, target, facts_of(sessions))
    except OptkitError as error:
        reporter.warn(f"Not timed against FP32: {error} {error.why}")
        return None


def against_fp32(
    rounds: NDArray[np.float64], here: list[str], target: str, facts: dict[str, Any]
) -> dict[str, Any]:
    """What rounds (n, files) say of the last file, in `target`; the others are FP32 in the runtimes `here`."""
    medians = np.median(rounds, axis=0)
    fastest = int(medians[:-1].argmin())
    ratio = paired_ratio(rounds[:, -1], rounds[:, fastest])
    return {
        "runtime": target,
        "fp32_runtime": here[fastest],
        "fp32_ms": round(float(medians[fastest]), 4),
        "int8_ms": round(float(medians[-1]), 4),
        "ratio": round(ratio.value, 4),
        "interval": [round(ratio.low, 4), round(ratio.high, 4)],
        "verdict": "faster" if ratio.high < 1 else "slower" if ratio.low > 1 else "cannot tell",
        **facts,
    }


def why_slower(found: dict[str, Any] | None) -> str:
    """The figures, when the file is surely slower than FP32."""
    if found is None or found["verdict"] != "slower":
        return ""
    low, high = found["interval"]
    return (
        f"SLOWER THAN FP32 HERE: {found['ratio']:.2f} times the latency of FP32 in {found['fp32_runtime']} "
        f"(95 %: {low:.2f} to {high:.2f}). INT8 takes {found['int8_ms']:.3g} ms in {found['runtime']}, FP32 "
        f"{found['fp32_ms']:.3g} ms, at batch {found['batch']} with {found['threads']} threads."
    )


def paired_ratio(times: NDArray[np.float64], to: NDArray[np.float64]) -> Ratio:
    """The mean of the rounds' log-ratios, with Student's t; two rounds at least."""
    logs = np.log(times / to)
    spread = float(logs.std(ddof=1)) / math.sqrt(len(logs)) * t95(len(logs) - 1)
    return Ratio(*(math.exp(float(logs.mean()) + part) for part in (0.0, -spread, spread)))


@contextmanager
def open_files(files: list[File], spec: ModelSpec) -> Iterator[list[Session]]:
    """A session of every file."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        sessions = []
        for index, file in enumerate(files):
            session = _open(file, spec, Path(folder) / str(index))
            opened.callback(session.close)
            sessions.append(session)
        yield sessions


def _open(file: File, spec: ModelSpec, folder: Path) -> Session:
    folder.mkdir()
    write_onnx(file.model, folder / Format.ONNX.filename)
    manifest = Manifest(
        stage="quantize", key=folder.name, format=Format.ONNX, precision=file.precision, spec=spec
    )
    return open_artifact(Artifact(folder.name, folder, manifest), file.runtime, SessionOptions(load_module))


def facts_of(sessions: list[Session]) -> dict[str, Any]:
    """How they are timed."""
    facts = sessions[-1].facts
    return {"batch": facts.get("fixed_batch") or 1, "threads": facts["threads"], "device": facts["device"]}


def time_rounds(
    sessions: list[Session], spec: ModelSpec, rounds: int, reporter: Reporter
) -> NDArray[np.float64]:
    """Median latencies in ms (rounds, sessions)."""
    size = spec.preprocess.size
    pixels = np.random.default_rng(0).standard_normal(
        (facts_of(sessions)["batch"], 3, size, size), np.float32
    )
    subjects = [Subject(lambda session=session: session.run(pixels), {}) for session in sessions]
    found = []
    with reporter.track("timing against FP32", rounds) as task:
        for _ in range(rounds):
            for subject in subjects:  # its warm-up is kept: it is warm from the round before
                subject.samples_ms, subject.spent_ms = [], 0.0
            measured = measure_latency(subjects, SECONDS, lambda _: None)
            found.append([statistics.median(one.samples) for one in measured])
            task.advance()
    return np.array(found)
