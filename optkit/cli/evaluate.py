"""`optkit evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import Done, StageCommand

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Measure the accuracy of a model file itself, whatever its format.

[bold]Examples[/]

    optkit evaluate ft/ --data photos/

    optkit evaluate model.onnx --data val.csv --size 224 --crop-pct 0.875 --json
"""


def to_json(artifact: Artifact) -> dict[str, Any]:
    """`{"top1": …, "n": …}` and everything else that was measured."""
    return (
        artifact.manifest.metrics | artifact.manifest.details | {"warnings": list(artifact.manifest.warnings)}
    )


def show(artifact: Artifact) -> None:
    """The figures, with the interval of the headline figure, and the weakest classes."""
    metrics = artifact.manifest.metrics
    low, high = metrics["top1_interval"]
    rows = [["top-1", f"{metrics['top1']:.4f}  (95 %: {low:.3f} – {high:.3f}, {metrics['n']} images)"]]
    rows += [
        [name, f"{value:.4f}"]
        for name, value in metrics.items()
        if isinstance(value, float) and name != "top1"
    ]
    _console.table("evaluate", ["", "value"], rows)
    weakest = sorted(artifact.manifest.details["per_class"], key=lambda row: row["recall"] or 0)[:5]
    _console.table(
        "lowest recall",
        ["class", "recall", "precision", "images"],
        [
            [str(row["class"]), f"{row['recall'] or 0:.3f}", f"{row['precision'] or 0:.3f}", str(row["n"])]
            for row in weakest
        ],
    )


def next_command(done: Done) -> str:
    """Its speed beside its accuracy."""
    return f"optkit bench {done.models}{done.data}"


command = StageCommand("evaluate", HELP, show, to_json, next_command, positional=("model",))
