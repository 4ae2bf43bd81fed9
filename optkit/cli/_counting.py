"""What the commands share that count a model, or an architecture by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optkit.cli._run import Done, Steps

SUFFIXES = (".onnx", ".safetensors", ".pth", ".pt", ".plan", ".engine")


def counting_step(stage: str, options: dict[str, Any], load: dict[str, Any]) -> Steps:
    """The step of a stage: what is a path is a model, anything else an architecture."""
    from optkit.core.types import MANIFEST  # --help needs no types

    options = dict(options)
    path = Path(options.get("model", ""))
    if "model" in options and path.suffix not in SUFFIXES and not path.exists() and "arch" not in options:
        options["arch"] = options.pop("model")
    elif "size" in options and path.is_file() and not (path.parent / MANIFEST).is_file():
        load["size"] = options["size"]
    return {stage: {"stage": stage, **options}}


def next_command(done: Done) -> str:
    """Measure the model here, or train the architecture."""
    name = done.artifact.manifest.details["name"]
    return f"optkit bench {done.models}" if done.models else f"optkit finetune --arch {name}"
