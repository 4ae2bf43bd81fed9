"""What `optkit bench` costs beside what it measures: the share of its wall time in runs, and its start.

    python benchmarks/bench_cost.py model.onnx

Runs: of a command with a budget of 30 s, the share in which models ran, timed or warming up. Start: the wall time of a
command until its model is open, against `import` of the runtime alone in a fresh interpreter, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from optkit.core import machine
from optkit.measure.statistics import paired_ratio

RESULTS = Path(__file__).parent / "results" / "bench_cost.json"
OPTKIT = [sys.executable, "-c", "from optkit.cli import main; main()"]
BUDGET_S = 30.0
IMPORTS = {
    "onnxruntime": "import onnxruntime",
    "openvino": "import openvino",
    "pytorch": "import torch, timm",
}
# With bytecode of both, as an installed package has it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
LEAST_SHARE, MOST_START = 0.9, 1.3  # what is asked for
FIRST_RUN_S = 0.001  # asked for, so that a command does little more than start


def bench(models: list[Path], runtime: str, seconds: float, folder: str) -> tuple[dict[str, Any], float]:
    """The answer of a command, and its wall time."""
    options = ["--runtimes", runtime, "--seconds", str(seconds), "--json"]
    options += ["--repeats", "1"] if seconds == FIRST_RUN_S else []
    started = time.monotonic()
    command = [*OPTKIT, "bench", *map(str, models), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout), time.monotonic() - started


def in_runs(models: list[Path], runtime: str, folder: str) -> dict[str, Any]:
    """The share of a budget's wall time in which models ran."""
    bench(
        models, runtime, FIRST_RUN_S, folder
    )  # the packages may have to be read from the disk the first time
    found, wall_s = bench(models, runtime, BUDGET_S / len(models), folder)
    runs_s = found["time"]["latency_runs_s"]
    return {
        "runtime": runtime,
        "models": len(models),
        "wall_s": wall_s,
        "runs_s": runs_s,
        "share": runs_s / wall_s,
        "holds": runs_s / wall_s >= LEAST_SHARE,
    }


def start(model: Path, runtime: str, rounds: int, folder: str) -> dict[str, Any]:
    """Seconds until the model is open, over those of the import."""
    bench([model], runtime, FIRST_RUN_S, folder)  # takes the model in; later ones find that done
    ours, theirs = [], []
    for number in range(rounds):
        for which in random.Random(number).sample([ours, theirs], 2):
            started = datetime.now(UTC)
            if which is ours:
                found, _ = bench([model], runtime, FIRST_RUN_S, folder)
                ended = datetime.fromisoformat(found["time"]["began"])
            else:
                subprocess.run([sys.executable, "-c", IMPORTS[runtime]], check=True, env=ENVIRONMENT)
                ended = datetime.now(UTC)
            which.append((ended - started).total_seconds())
    ratio = paired_ratio(np.array(ours), np.array(theirs))
    return {
        "runtime": runtime,
        "optkit_s": statistics.median(ours),
        "import_s": statistics.median(theirs),
        "ratio": ratio.value,
        "interval": [ratio.low, ratio.high],
        "holds": ratio.value <= MOST_START,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX classifier")
    parser.add_argument("--checkpoint", type=Path, help="artifact folder of a checkpoint, for PyTorch")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    files = {"onnxruntime": options.model.resolve(), "openvino": options.model.resolve()}
    if options.checkpoint:
        files["pytorch"] = options.checkpoint.resolve()
    with tempfile.TemporaryDirectory() as folder:
        shares = [in_runs([file], runtime, folder) for runtime, file in files.items()]
        starts = [start(file, runtime, options.rounds, folder) for runtime, file in files.items()]
    table = Table(
        "runtime",
        f"share of {BUDGET_S:.0f} s in runs",
        f"≥ {LEAST_SHARE:.0%}",
        "start",
        "import",
        "ratio (95 %)",
        f"≤ {MOST_START}",
    )
    for share, begun in zip(shares, starts, strict=True):
        low, high = begun["interval"]
        table.add_row(
            share["runtime"],
            f"{share['share']:.1%}",
            "yes" if share["holds"] else "NO",
            f"{begun['optkit_s']:.2f} s",
            f"{begun['import_s']:.2f} s",
            f"{begun['ratio']:.2f} ({low:.2f}–{high:.2f})",
            "yes" if begun["holds"] else "NO",
        )
    Console(width=120).print(table)
    result = {"machine": machine.facts(), "packages": machine.packages(), "runs": shares, "starts": starts}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
