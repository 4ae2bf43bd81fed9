"""`optkit export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optkit.cli._run import StageCommand, model_to_json, show_model

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Export to ONNX, checked against PyTorch at several batch sizes, or build a TensorRT engine.

An engine can be built without a GPU when tensorrt-rtx is installed (`pip install 'optkit\\[rtx]'`).

[bold]Examples[/]

    optkit export ft/ --out onnx/

    optkit export int8/ --format tensorrt --target SM89 --out engine/
"""


def next_command(artifact: Artifact, where: str) -> str:
    """Quantise an ONNX file, measure an engine."""
    if artifact.format == "engine":
        return f"optkit bench {where}"
    return f"optkit quantize {where} --data photos/"


command = StageCommand("export", HELP, show_model, model_to_json, next_command, positional=("model",))
