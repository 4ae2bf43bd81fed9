"""`optkit sample`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import Done, StageCommand

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Choose the images that models are calibrated with, once for several quantisations.

They are training images, evenly over the classes, and no copies of validation images. The result names them
and holds their SHA-256, so that a later run uses the same images or says which were changed.
`optkit quantize` without it makes the same choice itself.

[bold]Examples[/]

    optkit sample --data photos/ --images 300 --out calib/

    optkit quantize onnx/ --calibration calib/ --data photos/ --target tensorrt
"""

SHOWN = 10


def to_json(artifact: Artifact) -> dict[str, Any]:
    """How many images of which classes, their digest, and the warnings."""
    facts: dict[str, Any] = artifact.manifest.details["calibration"]
    return {"key": artifact.key, **facts, "warnings": list(artifact.manifest.warnings)}


def show(artifact: Artifact) -> None:
    """Images, classes, the rarest classes, digest."""
    facts = artifact.manifest.details["calibration"]
    rarest = sorted(facts["per_class"].items(), key=lambda item: item[1])[:SHOWN]
    rows = [
        ["images", str(facts["calibration_images"])],
        ["classes", f"{facts['classes_present']} of {facts['classes']}"],
        ["fewest of", ", ".join(f"{name} {count}" for name, count in rarest)],
        ["digest", facts["calibration_digest"]],
    ]
    _console.table("sample", ["", "value"], rows)


def next_command(done: Done) -> str:
    """Quantise with them."""
    return f"optkit quantize MODEL --calibration {done.where}{done.data}"


command = StageCommand("sample", HELP, show, to_json, next_command)
