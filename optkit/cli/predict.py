"""`optkit predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import StageCommand

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Name what is on an image, on every image of a folder, or of a pattern ("**": in every sub-folder).

--out keeps the answers as predictions.csv.

[bold]Examples[/]

    optkit predict ft/ cat.jpg

    optkit predict ft/ 'photos/**/*.jpg' --top-k 1 --out answers/

    optkit predict model.onnx 'photos/*.jpg' --top-k 3 --size 224 --json
"""


def to_json(artifact: Artifact) -> dict[str, Any]:
    """`{"predictions": [{"file", "top": [{"class", "p"}]}]}`."""
    return artifact.manifest.details | {"warnings": list(artifact.manifest.warnings)}


def show(artifact: Artifact) -> None:
    """One line per image."""
    rows = [
        [answer["file"], ", ".join(f"{top['class']} {top['p']:.3f}" for top in answer["top"])]
        for answer in artifact.manifest.details["predictions"]
    ]
    _console.table("predict", ["image", "classes"], rows)


command = StageCommand(
    "predict",
    HELP,
    show,
    to_json,
    lambda done: f"optkit evaluate {done.models} --data photos/",
    positional=("model", "images"),
)
