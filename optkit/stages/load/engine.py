"""An engine from outside."""

from __future__ import annotations

import shutil
from pathlib import Path

from optkit.core.errors import MissingError
from optkit.core.progress import Reporter
from optkit.core.types import Format, Output, Precision
from optkit.runtimes import tensorrt
from optkit.stages.load.config import Config
from optkit.stages.load.spec import complete, input_size


def take(config: Config, source: Path, target: Path, reporter: Reporter) -> Output:
    """A bare engine says next to nothing: its shapes are read off it where it can be loaded."""
    facts = tensorrt.describe(source)
    if (reason := tensorrt.unavailable()) is not None:
        raise MissingError(
            f"{str(source)!r} is a {tensorrt.summary(facts)}; it cannot be taken further here.",
            why=f"It has no manifest.json beside it, so only the engine itself could tell its classes and "
            f"input size, and {reason}. Its precision and preprocessing are not in the file.",
            hint="Give the artifact folder in which it was made, or the ONNX file it was built from: "
            "optkit bench model.onnx",
        )
    own_size, num_classes = tensorrt.classifier_shape(source)
    size = input_size(config, None, own_size, source)
    spec = complete(config, None, "engine", num_classes, size, reporter)
    reporter.warn(f"{source.name} does not say its precision: it is reported as unknown.")
    shutil.copyfile(source, target)
    return Output(Format.ENGINE, Precision.UNKNOWN, spec, details={"engine": facts})
