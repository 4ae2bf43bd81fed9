"""How often `optkit bench` is wrong: the same file under two names, and a file with 10 % more work.

    python benchmarks/bench_verdicts.py --repetitions 40

The network is a row of equal convolutions. A/A: one file, benched as two models; "faster" and "slower" are wrong. A/B:
the second file has 10 % more of the same convolutions, and nothing else; every repetition should say "slower". Each
repetition is one `optkit bench` command.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from optkit.core import machine
from optkit.measure.statistics import wilson

RESULTS = Path(__file__).parent / "results" / "bench_verdicts.json"
OPTKIT = [sys.executable, "-c", "from optkit.cli import main; main()"]
LAYERS, MORE = 40, 44
CHANNELS, SIDE, CLASSES = 64, 28, 10
WITHIN_S = 60.0


def network(layers: int, path: Path) -> None:
    """`layers` equal 3×3 convolutions between a stem and a head."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((0.05 * rng.standard_normal(shape)).astype(np.float32), name)

    weights = [weight("stem", CHANNELS, 3, 3, 3), weight("block", CHANNELS, CHANNELS, 3, 3)]
    weights.append(weight("head", CLASSES, CHANNELS, 1, 1))
    nodes = [helper.make_node("Conv", ["x", "stem"], ["t0"], "stem", pads=[1, 1, 1, 1])]
    for index in range(layers):
        conv = helper.make_node(
            "Conv", [f"t{index}", "block"], [f"c{index}"], f"conv{index}", pads=[1, 1, 1, 1]
        )
        nodes += [conv, helper.make_node("Relu", [f"c{index}"], [f"t{index + 1}"], f"relu{index}")]
    nodes += [
        helper.make_node("GlobalAveragePool", [f"t{layers}"], ["pooled"], "pool"),
        helper.make_node("Conv", ["pooled", "head"], ["last"], "head"),
        helper.make_node("Flatten", ["last"], ["logits"], "flatten"),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])
    graph = helper.make_graph(nodes, "row", [image], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


def bench(first: Path, second: Path, seconds: float) -> dict[str, Any]:
    """One command; its verdict and how long it took."""
    started = time.monotonic()
    command = [*OPTKIT, "bench", str(first), str(second), "--seconds", str(seconds), "--json"]
    done = subprocess.run(command, cwd=first.parent, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    (found,) = json.loads(done.stdout)["comparisons"]
    kept = ("ratio", "interval", "verdict", "rounds")
    return {name: found[name] for name in kept} | {"wall_s": round(time.monotonic() - started, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=5.0, help="timed of each model in a repetition")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"A/A": [], "A/B": []}
    with tempfile.TemporaryDirectory() as folder:
        a, same, b = (Path(folder) / f"{name}.onnx" for name in ("a", "same", "b"))
        network(LAYERS, a)
        shutil.copyfile(a, same)
        network(MORE, b)
        for number in range(options.repetitions):
            found["A/A"].append(bench(a, same, options.seconds))
            found["A/B"].append(bench(a, b, options.seconds))
            print(f"repetition {number + 1} of {options.repetitions}", file=sys.stderr)
    summaries = {name: summary(name, runs) for name, runs in found.items()}
    show(summaries)
    result = {
        "machine": machine.facts(),
        "packages": machine.packages(),
        "seconds": options.seconds,
        "layers": [LAYERS, MORE],
        "summaries": summaries,
        "runs": found,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """How many verdicts were what they should not be (A/A), or what they should be (A/B)."""
    verdicts = Counter(run["verdict"] for run in runs)
    counted = verdicts["slower"] + (verdicts["faster"] if name == "A/A" else 0)
    longest = max(run["wall_s"] for run in runs)
    share = counted / len(runs)
    return {
        "verdicts": dict(verdicts),
        "share": share,
        "interval": list(wilson(counted, len(runs))),
        "median_ratio": statistics.median(run["ratio"] for run in runs),
        "longest_s": longest,
        "holds": share <= 0.05 if name == "A/A" else share >= 0.9 and longest <= WITHIN_S,
    }


def show(summaries: dict[str, dict[str, Any]]) -> None:
    table = Table("", "verdicts", "share (95 %)", "asked", "median ratio", "longest run", "holds")
    asked = {"A/A": "wrong in at most 5 %", "A/B": "found in at least 90 %, within 60 s"}
    for name, found in summaries.items():
        low, high = found["interval"]
        verdicts = ", ".join(f"{n} × {verdict}" for verdict, n in found["verdicts"].items())
        share = f"{found['share']:.1%} ({low:.1%}–{high:.1%})"
        holds = "yes" if found["holds"] else "NO"
        ratio, longest = f"{found['median_ratio']:.3f}", f"{found['longest_s']:.1f} s"
        table.add_row(name, verdicts, share, asked[name], ratio, longest, holds)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
