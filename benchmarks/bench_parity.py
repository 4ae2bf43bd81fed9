"""`optkit bench` beside other tools' loops on the same file and settings: are the figures the same?

    python benchmarks/bench_parity.py model.onnx

In every round each runs as a command of its own, in another order: `optkit bench` in ONNX Runtime and in OpenVINO, a
loop as onnxruntime_perf_test has it (one session with default options, calls in a row), and OpenVINO's benchmark_app.
Compared are the medians of the rounds. Batch 1, as many threads everywhere, FP32 kernels.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from optkit.core import machine
from optkit.measure.statistics import Ratio, paired_ratio
from optkit.measure.verdict import Verdict, judge, overall

WITHIN = 0.03
SHOWN: dict[Verdict, str] = {"pass": "yes", "cannot tell": "cannot tell", "fail": "NO"}
RESULTS = Path(__file__).parent / "results" / "bench_parity.json"
OPTKIT = [sys.executable, "-c", "from optkit.cli import main; main()"]


def optkit_ms(model: Path, runtime: str, seconds: float, threads: int) -> float:
    """The median that `optkit bench` says."""
    options = ["--runtimes", runtime, "--seconds", str(seconds), "--threads", str(threads), "--json"]
    with tempfile.TemporaryDirectory() as folder:
        answer = _output([*OPTKIT, "bench", str(model), *options], folder)
    (row,) = json.loads(answer)["rows"]
    return float(row["latency_ms"]["p50"])


def perf_test_ms(model: Path, seconds: float, threads: int, spinning: bool) -> float:
    """The loop of onnxruntime_perf_test, in a process of its own."""
    command = [sys.executable, __file__, str(model), "--loop", str(seconds), "--threads", str(threads)]
    return float(_output([*command, *([] if spinning else ["--no-spinning"])]))


def loop(model: Path, seconds: float, threads: int, spinning: bool) -> float:
    """Median milliseconds of calls in a row, after a tenth of the time to warm up."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not spinning:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    shape = fixed(image.shape)
    feed = {image.name: np.random.default_rng(0).standard_normal(shape, np.float32)}
    samples: list[float] = []
    for span in (seconds / 10, seconds):
        samples, end = [], time.perf_counter() + span
        while (started := time.perf_counter()) < end:
            session.run(None, feed)
            samples.append(1000 * (time.perf_counter() - started))
    return statistics.median(samples)


def fixed(shape: list[int | str]) -> list[int]:
    """The shape of one image, where the batch is open."""
    return [axis if isinstance(axis, int) else 1 for axis in shape]


def benchmark_app_ms(model: Path, seconds: float, threads: int) -> float:
    """The median that benchmark_app prints, one request after the other."""
    command = [str(Path(sys.executable).parent / "benchmark_app"), "-m", str(model), "-api", "sync"]
    settings = ["-hint", "none", "-nstreams", "1", "-nthreads", str(threads), "-infer_precision", "f32"]
    shape = fixed(
        onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).get_inputs()[0].shape
    )
    settings += ["-data_shape", f"[{','.join(map(str, shape))}]"]
    text = _output([*command, *settings, "-t", str(max(1, round(seconds)))])
    value, unit = re.search(r"Median:\s+([\d.]+) (ms|us)", text).groups()
    return float(value) / (1000 if unit == "us" else 1)


def _output(command: list[str], folder: str | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX classifier with a fixed image size")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3.0, help="timed in each run")
    parser.add_argument("--threads", type=int, default=machine.facts()["cores"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--loop", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--no-spinning", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        print(loop(options.model, options.loop, options.threads, not options.no_spinning))
        return
    model, seconds, threads = options.model.resolve(), options.seconds, options.threads
    arms = {
        "optkit, onnxruntime": lambda: optkit_ms(model, "onnxruntime", seconds, threads),
        "perf_test loop": lambda: perf_test_ms(model, seconds, threads, True),
        "perf_test loop, no spinning between runs": lambda: perf_test_ms(model, seconds, threads, False),
        "optkit, openvino": lambda: optkit_ms(model, "openvino", seconds, threads),
        "benchmark_app": lambda: benchmark_app_ms(model, seconds, threads),
    }
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(options.rounds):
        for name in random.Random(number).sample(list(arms), len(arms)):
            found[name].append(arms[name]())
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    rows = [
        compare(found, "optkit, onnxruntime", "perf_test loop"),
        compare(found, "optkit, onnxruntime", "perf_test loop, no spinning between runs"),
        compare(found, "optkit, openvino", "benchmark_app"),
    ]
    show(rows)
    result = {
        "model": model.name,
        "threads": threads,
        "seconds": seconds,
        "machine": machine.facts(),
        "packages": machine.packages(),
        "comparisons": rows,
        "medians_ms": found,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def compare(found: dict[str, list[float]], ours: str, theirs: str) -> dict[str, Any]:
    ratio = paired_ratio(np.array(found[ours]), np.array(found[theirs]))
    return {
        "optkit": ours,
        "other": theirs,
        "optkit_ms": statistics.median(found[ours]),
        "other_ms": statistics.median(found[theirs]),
        "ratio": ratio.value,
        "interval": [ratio.low, ratio.high],
        "within_3_percent": within(ratio),
    }


def within(ratio: Ratio) -> Verdict:
    """Pass where the whole interval lies within 3 %, "cannot tell" where only the ratio itself does."""

    def verdict(low: float, high: float) -> Verdict:
        return overall([judge((low, high), 1 + WITHIN, True), judge((low, high), 1 - WITHIN, False)])

    return verdict(ratio.low, ratio.high) if verdict(ratio.value, ratio.value) == "pass" else "fail"


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("optkit", "ms", "other", "ms", "ratio (95 %)", f"within {WITHIN:.0%}")
    for row in rows:
        low, high = row["interval"]
        table.add_row(
            row["optkit"],
            f"{row['optkit_ms']:.3f}",
            row["other"],
            f"{row['other_ms']:.3f}",
            f"{row['ratio']:.3f} ({low:.3f}–{high:.3f})",
            SHOWN[row["within_3_percent"]],
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
