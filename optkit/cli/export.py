"""`optkit export`."""

from __future__ import annotations

from optkit.cli._run import model_to_json, show_model, stage_command
from optkit.core.types import Artifact, Format

HELP = """Export to ONNX, checked against PyTorch at several batch sizes, or build a TensorRT engine.

An engine can be built without a GPU when tensorrt-rtx is installed (`pip install 'optkit[rtx]'`).

**Examples**

    optkit export ft/ --out onnx/

    optkit export int8/ --format tensorrt --target SM89 --out engine/
"""


def next_command(artifact: Artifact, where: str) -> str:
    """Quantise an ONNX file, measure an engine."""
    if artifact.format is Format.ENGINE:
        return f"optkit bench {where}"
    return f"optkit quantize {where} --data photos/"


command = stage_command("export", HELP, show_model, model_to_json, next_command, positional=("model",))
