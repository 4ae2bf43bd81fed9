"""Whether the file is faster than FP32 on this machine, measured in turns."""

from __future__ import annotations

import math
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optkit.core import discover
from optkit.core.errors import OptkitError
from optkit.core.types import Artifact, Context, Format, Manifest, ModelSpec, Precision
from optkit.graph.onnx_file import write_onnx
from optkit.measure.latency import Subject, measure_latency
from optkit.measure.statistics import t95
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import PACKAGE, Session, SessionOptions, open_artifact

RUNTIMES = ("onnxruntime", "openvino")  # of CPUs, and targets by the same names; an engine needs its GPU
ROUNDS = 8
SECONDS = 0.15  # of each file, in each round


def compare_speed(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, spec: ModelSpec, target: str, context: Context
) -> dict[str, Any] | None:
    """Latencies in ms of one batch, and their ratio INT8 / FP32 with its 95 % interval.

    INT8 runs in the target's runtime, FP32 in every one that is here, as the user may choose too: the fastest counts.
    The interval is of the mean of the rounds' log-ratios (Student's t). Warns when the file is slower. None for
    engines, and where the runtime is missing or refuses a file.
    """
    here = [name for name in RUNTIMES if discover.load(PACKAGE, name, "runtime").unavailable() is None]
    if target not in RUNTIMES:
        return None
    if target not in here:
        context.reporter.info(f"Not timed against FP32: {target} is not installed.")
        return None
    try:
        rounds, facts = _rounds(fp32, int8, spec, [*here, target], context)
    except OptkitError as error:
        context.reporter.warn(f"Not timed against FP32: {error} {error.why}")
        return None
    medians = np.median(rounds, axis=0)
    fastest = int(medians[:-1].argmin())
    ratios = np.log(rounds[:, -1] / rounds[:, fastest])
    spread = float(ratios.std(ddof=1)) / math.sqrt(len(ratios)) * t95(len(ratios) - 1)
    ratio, low, high = (math.exp(float(ratios.mean()) + part) for part in (0.0, -spread, spread))
    verdict = "faster" if high < 1 else "slower" if low > 1 else "cannot tell"
    if verdict == "slower":
        context.reporter.warn(
            f"SLOWER THAN FP32 HERE: {ratio:.2f} times the latency of FP32 in {here[fastest]} "
            f"(95 %: {low:.2f} to {high:.2f}). Measured at batch {facts['batch']} on this machine."
        )
    return {
        "runtime": target,
        "fp32_runtime": here[fastest],
        "fp32_ms": round(float(medians[fastest]), 4),
        "int8_ms": round(float(medians[-1]), 4),
        "ratio": round(ratio, 4),
        "interval": [round(low, 4), round(high, 4)],
        "verdict": verdict,
        **facts,
    }


def _rounds(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, spec: ModelSpec, runtimes: list[str], context: Context
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Median latencies in ms (rounds, runtimes), the last of the INT8 file; and how they were taken."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        sessions = []
        for index, runtime in enumerate(runtimes):
            model, name = (int8, "int8") if index == len(runtimes) - 1 else (fp32, "fp32")
            session = _open(model, spec, runtime, Path(folder) / f"{index}" / name)
            opened.callback(session.close)
            sessions.append(session)
        batch = sessions[-1].facts.get("fixed_batch") or 1
        facts = {
            "batch": batch,
            "threads": sessions[-1].facts["threads"],
            "device": sessions[-1].facts["device"],
        }
        return _medians(sessions, batch, spec.preprocess.size, context), facts


def _open(model: onnx.ModelProto, spec: ModelSpec, runtime: str, folder: Path) -> Session:
    folder.mkdir(parents=True)
    write_onnx(model, folder / Format.ONNX.filename)
    manifest = Manifest(
        stage="quantize", key=folder.name, format=Format.ONNX, precision=Precision(folder.name), spec=spec
    )
    return open_artifact(Artifact(folder.name, folder, manifest), runtime, SessionOptions(load_module))


def _medians(sessions: list[Session], batch: int, size: int, context: Context) -> NDArray[np.float64]:
    """Median latencies in ms (rounds, sessions)."""
    pixels = np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)
    found = []
    with context.reporter.track("timing against FP32", ROUNDS) as task:
        for _ in range(ROUNDS):
            subjects = [Subject(lambda session=session: session.run(pixels), {}) for session in sessions]
            measured = measure_latency(subjects, SECONDS, lambda _: None)
            found.append([statistics.median(one.samples) for one in measured])
            task.advance()
    return np.array(found)
