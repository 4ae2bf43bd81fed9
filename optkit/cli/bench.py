"""`optkit bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import Done, StageCommand

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Measure models side by side: latency, throughput, accuracy of the file itself, MACs, bytes.

Models are artifact folders, .onnx files, checkpoints or engines, one or several; the first is the baseline.

[bold]Examples[/]

    optkit bench engine.plan

    optkit bench onnx/ int8/ --data photos/

    optkit bench model.onnx --runtimes onnxruntime,openvino --batch-sizes 1,8
"""


def to_json(artifact: Artifact) -> dict[str, Any]:
    """`{"rows": […]}`."""
    return {"rows": artifact.manifest.details["rows"], "warnings": list(artifact.manifest.warnings)}


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def show(artifact: Artifact) -> None:
    """One line per model, runtime and batch size; reasons for what was not measured below."""
    rows: list[list[str]] = []
    names = short_names([row["name"] for row in artifact.manifest.details["rows"]])
    reasons: dict[str, None] = {}  # a set that keeps its order
    for row in artifact.manifest.details["rows"]:
        name = names[row["name"]]
        latency = row["latency_ms"] or {}
        rows.append(
            [
                f"{name} ({row['precision']})",
                f"{row['runtime']} ×{row['batch']}",
                " / ".join(_number(latency.get(name), ".2f") for name in ("p50", "p90", "p99")),
                _number(row["throughput"], ".0f"),
                _number(row["top1"], ".3f"),
                _number(row["macs"] and row["macs"] / 1e6, ",.0f"),
                _number(row["size_bytes"] / 1e6, ".1f"),
            ]
        )
        reasons |= {f"{name}: {reason}": None for reason in row["not_measured"].values()}
        reasons |= {
            f"{name}: p99 rests on {row['samples']} calls, 662 are needed; take it as indicative": None
            for percentile in row["indicative"]
            if percentile == "p99"
        }
    columns = ["model", "runtime ×batch", "p50 / p90 / p99 ms", "img/s", "top-1", "MMACs", "MB"]
    _console.table("bench", columns, rows)
    for reason in reasons:
        _console.out.print(reason, markup=False, highlight=False)


def short_names(names: list[str]) -> dict[str, str]:
    """Paths without what they do not need to be told apart."""
    for depth in range(1, 99):
        short = {name: "/".join(Path(name).parts[-depth:]) for name in names}
        if len(set(short.values())) == len(short):
            break
    return short


def next_command(done: Done) -> str:
    """Keep the measurement, as JSON."""
    return f"optkit bench {done.models}{done.data} --json > bench.json"


command = StageCommand("bench", HELP, show, to_json, next_command, positional=("models",))
