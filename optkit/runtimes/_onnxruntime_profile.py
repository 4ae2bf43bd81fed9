"""What ONNX Runtime's own profiler says of a run."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.runtimes._kernels import WARM_UP, KernelTime, LayerTimes, Repeats, layer_medians

if TYPE_CHECKING:
    import onnxruntime

SUFFIX = "_kernel_time"
PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8"}


def profile(start: Callable[[Path], onnxruntime.InferenceSession], repeats: Repeats) -> LayerTimes:
    """Times of the kernels of the session that `start` opens, its profiler writing to files of a given prefix."""
    with tempfile.TemporaryDirectory() as folder:
        session = start(Path(folder) / "profile")
        taken = session.get_inputs()[0]
        dtype = "float16" if "float16" in taken.type else "float32"
        feed = {taken.name: repeats.pixels.astype(dtype, copy=False)}
        totals = repeats.time(lambda: session.run(None, feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    runs = _runs(events)[WARM_UP:]
    facts = {event["name"]: event["args"] for run in runs for event in run}

    def kernel(name: str, ms: float) -> KernelTime:
        return KernelTime(
            name.removesuffix(SUFFIX), facts[name]["op_name"], ms, None, _precision(facts[name])
        )

    return layer_medians(totals, [_sums(run) for run in runs], kernel)


def _runs(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The events of every kernel, run by run."""
    found: list[list[dict[str, Any]]] = [[]]
    for event in events:
        if event["name"] == "model_run":  # written when a run has ended
            found.append([])
        elif event["cat"] == "Node" and event["name"].endswith(SUFFIX):
            found[-1].append(event)
    return found[:-1]


def _sums(run: list[dict[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for event in run:
        total[event["name"]] += event["dur"] / 1000
    return total


def _precision(facts: dict[str, Any]) -> str:
    """The type of the first operand."""
    first: dict[str, Any] = next(iter(facts.get("input_type_shape", [])), {})
    return PRECISIONS.get(next(iter(first), ""), "")
