"""Take a model file from outside into an artifact. Files are parsed, never executed."""

from __future__ import annotations

import importlib
from pathlib import Path

from optkit.core.types import Artifact, Context, Format, Output
from optkit.stages.load.config import Config

# One module each, imported when it is needed: a checkpoint takes torch, an ONNX file does not.
TAKERS = {Format.ONNX: "onnx_file", Format.TORCH: "checkpoint", Format.ENGINE: "engine"}


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Check the file, learn its spec, and write it under the artifact's own name."""
    kind = config.produces()
    taker = importlib.import_module(f"optkit.stages.load.{TAKERS[kind]}")
    output: Output = taker.take(config, Path(config.path), context.workdir / kind.filename, context.reporter)
    return output
