"""`optkit export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optkit.cli._run import Done, StageCommand, model_to_json, show_model

if TYPE_CHECKING:
    pass

HELP = """Export to ONNX, checked against PyTorch at several batch sizes, or build a TensorRT engine.

An engine can be built without a GPU when tensorrt-rtx is installed (`pip install 'optkit\\[rtx]'`).

[bold]Examples[/]

    optkit export ft/ --out onnx/

    optkit export int8/ --format tensorrt --target SM89 --out engine/
"""


def next_command(done: Done) -> str:
    """Quantise an ONNX file, measure an engine."""
    if done.artifact.format == "engine":
        return f"optkit bench {done.where}{done.data}"
    return f"optkit quantize {done.where}{done.data}"


command = StageCommand("export", HELP, show_model, model_to_json, next_command, positional=("model",))
