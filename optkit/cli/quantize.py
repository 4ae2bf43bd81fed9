"""`optkit quantize`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optkit.cli._run import Done, StageCommand, model_to_json, show_model

if TYPE_CHECKING:
    pass

HELP = """Quantise an ONNX classifier to INT8, for the runtime that will execute it.

A file suits one target: what TensorRT takes is slow in ONNX Runtime, and the reverse is refused.

[bold]Examples[/]

    optkit quantize onnx/ --data photos/ --target onnxruntime --out int8/

    optkit quantize model.onnx --data photos/ --target tensorrt --size 224 --mean .485 .456 .406 --std .229 .224 .225
"""


def next_command(done: Done) -> str:
    """An engine for TensorRT, a measurement beside the original for everything else."""
    if done.artifact.manifest.config["target"] == "tensorrt":
        return f"optkit export {done.where} --format tensorrt"
    return f"optkit bench {done.models} {done.where}{done.data}"


command = StageCommand("quantize", HELP, show_model, model_to_json, next_command, positional=("model",))
