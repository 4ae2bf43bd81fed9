"""Whether the file is faster than FP32 where it will run, measured in turns."""

from __future__ import annotations

import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from optkit.core import discover
from optkit.core.types import Artifact, Context, Format, Manifest, ModelSpec, Precision
from optkit.graph.onnx_file import write_onnx
from optkit.measure.latency import Subject, measure_latency
from optkit.measure.statistics import t95
from optkit.models.checkpoint import load_module
from optkit.runtimes.base import PACKAGE, Session, SessionOptions, open_artifact

RUNTIMES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}  # by target; an engine needs its GPU
ROUNDS = 8
SECONDS = 0.15  # of each file, in each round


def compare_speed(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, spec: ModelSpec, target: str, context: Context
) -> dict[str, Any] | None:
    """Latencies in ms at batch 1, and their ratio INT8 / FP32 with its 95 % interval; None for engines
    and where the runtime is missing.

    The interval is of the mean of the rounds' log-ratios (Student's t). Warns when the file is slower.
    """
    if target not in RUNTIMES:
        return None
    runtime = RUNTIMES[target]
    if reason := discover.load(PACKAGE, runtime, "runtime").unavailable():
        context.reporter.info(f"Not timed against FP32: {reason}.")
        return None
    with tempfile.TemporaryDirectory() as folder:
        sessions = [
            _open(model, spec, runtime, Path(folder) / name)
            for name, model in (("fp32", fp32), ("int8", int8))
        ]
        try:
            medians = _medians(sessions, spec.preprocess.size, context)
        finally:
            for session in sessions:
                session.close()
    ratios = [math.log(after / before) for before, after in medians]
    mean, spread = statistics.mean(ratios), statistics.stdev(ratios) / math.sqrt(ROUNDS) * t95(ROUNDS - 1)
    ratio, low, high = (math.exp(value) for value in (mean, mean - spread, mean + spread))
    verdict = "faster" if high < 1 else "slower" if low > 1 else "cannot tell"
    if verdict == "slower":
        context.reporter.warn(
            f"SLOWER THAN FP32 HERE: {ratio:.2f} times its latency in {runtime} (95 %: {low:.2f} to {high:.2f}). "
            "Measured at batch 1 on this machine."
        )
    return {
        "runtime": runtime,
        "fp32_ms": round(statistics.median(before for before, _ in medians), 4),
        "int8_ms": round(statistics.median(after for _, after in medians), 4),
        "ratio": round(ratio, 4),
        "interval": [round(low, 4), round(high, 4)],
        "threads": sessions[0].facts["threads"],
        "verdict": verdict,
    }


def _open(model: onnx.ModelProto, spec: ModelSpec, runtime: str, folder: Path) -> Session:
    folder.mkdir()
    write_onnx(model, folder / Format.ONNX.filename)
    manifest = Manifest(
        stage="quantize", key=folder.name, format=Format.ONNX, precision=Precision(folder.name), spec=spec
    )
    return open_artifact(Artifact(folder.name, folder, manifest), runtime, SessionOptions(load_module))


def _medians(sessions: list[Session], size: int, context: Context) -> list[tuple[float, float]]:
    """Median latency of both files in every round."""
    batch = sessions[0].facts.get("fixed_batch") or 1
    pixels = np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)
    found = []
    with context.reporter.track("timing against FP32", ROUNDS) as task:
        for _ in range(ROUNDS):
            subjects = [Subject(lambda session=session: session.run(pixels), {}) for session in sessions]
            before, after = measure_latency(subjects, SECONDS, lambda _: None)
            found.append((statistics.median(before.samples), statistics.median(after.samples)))
            task.advance()
    return found
