"""`optkit explain`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import StageCommand

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Show where in the images a model finds its evidence, and whether a second model looks there too.

Writes one PNG per image into maps/: the photo, and the photo under the model's map for the class it predicted
(of two models: for the class that the first predicted). Mistakes come first. Two models' agreement is measured
on images drawn at random, not on these.

[bold]Examples[/]

    optkit explain ft/ --data photos/ --out explained/

    optkit explain ft/ pruned/ --data photos/ --count 50 --out explained/

    optkit explain ft/ int8/ --data photos/ --method occlusion --out explained/

    optkit explain ft/ --images 'new/**/*.jpg' --layer blocks.4
"""


def to_json(artifact: Artifact) -> dict[str, Any]:
    """`{"n", "maps": [{"file", "image", "label", "prediction", "p"}], …}`; images are relative to `folder`."""
    manifest = artifact.manifest
    found = {"folder": str(artifact.path), "warnings": list(manifest.warnings)}
    return manifest.metrics | manifest.details | found


def show(artifact: Artifact) -> None:
    """The pictures, what they show, and how far the two models agree."""
    manifest = artifact.manifest
    rows = [
        [
            row["image"],
            row["file"],
            row["label"] or "–",
            f"{row['prediction']} {row['p']:.3f}",
            *([f"{row['prediction_other']} {row['p_other']:.3f}"] if "p_other" in row else []),
        ]
        for row in manifest.details["maps"]
    ]
    columns = ["picture", "image", "is", "taken for", "other model"]
    _console.table(f"explain: {artifact.path}", columns[: len(rows[0])], rows)
    if "iou" in manifest.metrics:
        title = f"agreement, {manifest.metrics['agreement_n']} images drawn at random"
        _console.table(title, ["", "mean", "95 % interval"], _agreement(manifest.metrics))


def _agreement(metrics: dict[str, Any]) -> list[list[str]]:
    from optkit.report.findings import AGREEMENT  # --help needs no report

    rows = []
    for name, text in AGREEMENT.items():
        mean, bounds = metrics[name], metrics[f"{name}_interval"]
        rows.append(
            [
                text,
                "–" if mean is None else f"{mean:.3f}",
                f"{bounds[0]:.3f} – {bounds[1]:.3f}" if bounds else "–",
            ]
        )
    return rows


command = StageCommand(
    "explain",
    HELP,
    show,
    to_json,
    lambda done: f"optkit evaluate {shlex.quote(shlex.split(done.models)[0])}{done.data}",
    positional=("model", "other"),
)
