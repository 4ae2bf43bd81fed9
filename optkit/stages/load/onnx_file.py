"""An ONNX file from outside. Nothing here needs torch, which takes seconds to import."""

from __future__ import annotations

from pathlib import Path

from optkit.core.errors import InputError
from optkit.core.progress import Reporter
from optkit.core.types import Format, Output
from optkit.graph.onnx_file import (
    classifier_io,
    embed_spec,
    precision_of,
    read_onnx,
    spec_from_metadata,
    write_onnx,
)
from optkit.measure.onnx_cost import onnx_cost
from optkit.stages.load.config import Config
from optkit.stages.load.spec import complete, input_size


def take(config: Config, source: Path, target: Path, reporter: Reporter) -> Output:
    """Any classifier; external data is merged into the file."""
    model = read_onnx(source)
    io, known = classifier_io(model), spec_from_metadata(model)
    if known and known.num_classes != io.num_classes:
        raise InputError(
            f"The metadata of {str(source)!r} does not fit its graph.",
            why=f"It speaks of {known.num_classes} classes, the output has {io.num_classes}.",
            hint="Export the file again.",
        )
    size = input_size(config, known.preprocess.size if known else None, io.size, source)
    spec = complete(config, known, known.arch if known else "onnx", io.num_classes, size, reporter)
    embed_spec(model, spec)
    write_onnx(model, target)
    details = {
        "opset": {entry.domain: entry.version for entry in model.opset_import},
        "fixed_batch": io.batch,
    }
    cost = onnx_cost(model, size)
    return Output(Format.ONNX, precision_of(model), spec, cost.metrics(), details=details)
