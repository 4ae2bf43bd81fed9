"""`optkit quantize`."""

from __future__ import annotations

import shlex
from typing import Any

from optkit.cli._quantize_show import quantized_to_json, show_quantized
from optkit.cli._run import Done, StageCommand, Steps

HELP = """Quantise an ONNX classifier to INT8, FP8, FP16 or BF16, for the runtime that will execute it.

A file suits one target: what TensorRT takes is slow in ONNX Runtime, and the reverse is refused.
A checkpoint is exported to ONNX first. A budget (--max-drop, --min-agreement, --min-sqnr) starts the recovery
ladder: equalised channels, ranges tensor by tensor, corrected biases, fitted weights … until the budget holds.
It also measures speed on this CPU: as many first layers as are faster in floating point stay there, and INT8 that is
still slower than FP32 is refused.

[bold]Examples[/]

    optkit quantize ft/ --data photos/

    optkit quantize onnx/ --data photos/ --target onnxruntime --out int8/

    optkit quantize onnx/ --data photos/ --target tensorrt --max-drop 0.5

    optkit quantize onnx/ --data photos/ --target tensorrt --precision fp16

    optkit quantize model.onnx --data photos/ --target tensorrt --size 224 --mean .485 .456 .406 --std .229 .224 .225
"""
EXPORTED = "exported"  # the step that makes ONNX from a checkpoint


def expand(options: dict[str, Any], load: dict[str, Any]) -> Steps:
    """The export of a checkpoint, where one is given, and the quantisation."""
    if not _is_checkpoint(options["model"]):
        return {"quantize": {"stage": "quantize", **options}}
    return {
        EXPORTED: {"stage": "export", "model": options["model"]},
        "quantize": {"stage": "quantize", **options, "model": EXPORTED},
    }


def _is_checkpoint(model: str) -> bool:
    from optkit.core.types import Format  # --help needs neither
    from optkit.pipeline import format_of

    return format_of(model) is Format.TORCH


def next_command(done: Done) -> str:
    """An engine for TensorRT, a measurement beside the original for everything else."""
    target = done.artifact.manifest.config["target"]
    if target == "tensorrt":
        return f"optkit export {done.where} --format tensorrt"
    if target == "openvino":  # which reads no checkpoints
        original = "" if _is_checkpoint(shlex.split(done.models)[0]) else f"{done.models} "
        return f"optkit bench {original}{done.where}{done.data} --runtimes openvino"
    return f"optkit bench {done.models} {done.where}{done.data}"


command = StageCommand(
    "quantize", HELP, show_quantized, quantized_to_json, next_command, positional=("model",), expand=expand
)
