"""`optkit evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import Done, StageCommand

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Measure the accuracy of a model file itself, whatever its format.

Every figure comes with its 95 % interval; --out keeps thumbnails of the worst mistakes.
OpenVINO reads ONNX files: give one with --runtime openvino.

[bold]Examples[/]

    optkit evaluate ft/ --data photos/

    optkit evaluate int8/ --data photos/ --out evaluation/

    optkit evaluate model.onnx --runtime openvino --data photos/

    optkit evaluate model.onnx --data val.csv --size 224 --crop-pct 0.875 --json
"""


def to_json(artifact: Artifact) -> dict[str, Any]:
    """`{"top1": …, "n": …}` and everything else that was measured."""
    return (
        artifact.manifest.metrics | artifact.manifest.details | {"warnings": list(artifact.manifest.warnings)}
    )


SHOWN = 5  # classes, confusions, mistakes


def show(artifact: Artifact) -> None:
    """The figures with their intervals, the weakest classes, what is taken for what, the worst mistakes."""
    from optkit.report.findings import FIGURES  # --help needs no report

    metrics, details = artifact.manifest.metrics, artifact.manifest.details
    rows = []
    for name, text in FIGURES.items():
        if metrics[name] is not None:
            low, high = metrics[f"{name}_interval"]
            rows.append([text, f"{metrics[name]:.4f}", f"{low:.4f} – {high:.4f}"])
    _console.table(f"evaluate, {metrics['n']} images", ["", "value", "95 % interval"], rows)
    shown = [row for row in details["per_class"] if row["n"]]
    weakest = sorted(shown, key=lambda row: row["recall"])[:SHOWN]
    _console.table(
        "lowest recall",
        ["class", "recall", "precision", "F1", "images"],
        [
            [row["class"], *(f"{row[name]:.3f}" for name in ("recall", "precision", "f1")), str(row["n"])]
            for row in weakest
        ],
    )
    if details["confusions"]:
        confusions = [
            [f"{row['label']} taken for {row['prediction']}", str(row["n"])]
            for row in details["confusions"][:SHOWN]
        ]
        _console.table("most frequent confusions", ["", "images"], confusions)
        mistakes = [
            [row["file"], row["label"], row["prediction"], f"{row['p']:.3f}"]
            for row in details["mistakes"][:SHOWN]
        ]
        _console.table("worst mistakes", ["image", "is", "taken for", "p"], mistakes)


def next_command(done: Done) -> str:
    """Its speed beside its accuracy."""
    return f"optkit bench {done.models}{done.data}"


command = StageCommand("evaluate", HELP, show, to_json, next_command, positional=("model",))
