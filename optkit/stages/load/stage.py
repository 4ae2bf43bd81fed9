"""Take a model file from outside into an artifact. Files are parsed, never executed."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

from optkit.core.errors import InputError, MissingError, UsageError
from optkit.core.progress import Reporter
from optkit.core.types import Artifact, Context, Format, ModelSpec, Output, Precision, Preprocess
from optkit.graph.onnx_file import (
    classifier_io,
    embed_spec,
    precision_of,
    read_onnx,
    spec_from_metadata,
    write_onnx,
)
from optkit.measure.cost import Cost, module_cost, onnx_cost
from optkit.models.build import build, default_preprocess
from optkit.models.checkpoint import module_from_state, read_state, save_checkpoint, spec_of
from optkit.models.names import timm_name
from optkit.runtimes import tensorrt
from optkit.stages.load.config import Config


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Check the file, learn its spec, and write it under the artifact's own name."""
    target = context.workdir / config.produces().filename
    take = {Format.ONNX: _take_onnx, Format.TORCH: _take_checkpoint, Format.ENGINE: _take_engine}
    return take[config.produces()](config, Path(config.path), target, context.reporter)


def _take_onnx(config: Config, source: Path, target: Path, reporter: Reporter) -> Output:
    """Any classifier; external data is merged into the file."""
    model = read_onnx(source)
    io, known = classifier_io(model), spec_from_metadata(model)
    if known and known.num_classes != io.num_classes:
        raise InputError(
            f"The metadata of {str(source)!r} does not fit its graph.",
            why=f"It speaks of {known.num_classes} classes, the output has {io.num_classes}.",
            hint="Export the file again.",
        )
    size = _input_size(config, known.preprocess.size if known else None, io.size, source)
    spec = _complete(config, known, known.arch if known else "onnx", io.num_classes, size, reporter)
    embed_spec(model, spec)
    write_onnx(model, target)
    details = {
        "opset": {entry.domain: entry.version for entry in model.opset_import},
        "fixed_batch": io.batch,
    }
    cost = onnx_cost(model, size)
    return Output(Format.ONNX, precision_of(model), spec, _metrics(cost), details=details)


def _take_checkpoint(config: Config, source: Path, target: Path, reporter: Reporter) -> Output:
    """Tensors only, written again as safetensors with the spec inside."""
    known = spec_of(source) if source.suffix.lower() == ".safetensors" else None
    state = read_state(source)
    arch = timm_name(config.arch) if config.arch else known.arch if known else None
    if arch is None:
        raise UsageError(
            f"{str(source)!r} does not say which network its weights belong to.",
            why="It is a bare checkpoint, without optkit's metadata.",
            hint="Name the architecture: --arch b0 (or lite0, or any timm name).",
        )
    if known and known.arch != arch:
        known = None
    own = known.preprocess if known else default_preprocess(arch)
    num_classes = known.num_classes if known else _classes_of_head(arch, state, source)
    spec = _complete(config, known, arch, num_classes, config.size or own.size, reporter, own)
    module = module_from_state(spec, state, str(source))
    save_checkpoint(module, spec, target)
    return Output(Format.TORCH, Precision.FP32, spec, _metrics(module_cost(module, spec.preprocess.size)))


def _metrics(cost: Cost) -> dict[str, int]:
    return {"macs": cost.macs, "params": cost.params}


def _classes_of_head(arch: str, state: dict[str, torch.Tensor], source: Path) -> int:
    """How many rows the head's weights have; building the architecture says which tensor that is."""
    with torch.device("meta"):
        module = build(arch, 2)
    get_head = getattr(module, "get_classifier", None)
    head = get_head() if callable(get_head) else None
    names = [name for name, layer in module.named_modules() if layer is head and isinstance(layer, nn.Linear)]
    weight = state.get(f"{names[0]}.weight") if names else None
    if weight is None:
        raise InputError(
            f"The weights of {str(source)!r} do not fit {arch!r}.",
            why=f"They lack its head {names[0]!r}."
            if names
            else "The architecture has no plain linear head.",
            hint="Name the architecture they were trained for (--arch).",
        )
    return len(weight)


def _take_engine(config: Config, source: Path, target: Path, reporter: Reporter) -> Output:
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
    size = _input_size(config, None, own_size, source)
    spec = _complete(config, None, "engine", num_classes, size, reporter)
    reporter.warn(f"{source.name} does not say its precision: it is reported as unknown.")
    shutil.copyfile(source, target)
    return Output(Format.ENGINE, Precision.UNKNOWN, spec, details={"engine": facts})


def _input_size(config: Config, stated: int | None, fixed: int | None, source: Path) -> int:
    """The size asked for or stated, which a graph of fixed size must have."""
    size = config.size or fixed or stated
    if size is None:
        raise UsageError(
            f"{str(source)!r} does not say its input size.",
            why="The graph takes any height and width.",
            hint="Give the size it was trained at: --size 224",
        )
    if fixed and size != fixed:
        raise UsageError(f"{str(source)!r} takes {fixed}×{fixed} pixels, not {size}.", hint=f"--size {fixed}")
    return size


def _complete(
    config: Config,
    known: ModelSpec | None,
    arch: str,
    num_classes: int,
    size: int,
    reporter: Reporter,
    own: Preprocess | None = None,
) -> ModelSpec:
    """The spec: what the options say, else the file, else `own` or ImageNet's habits, with a warning."""
    fields = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    given = {name: value for name in fields if (value := getattr(config, name)) is not None}
    base = (known.preprocess if known else own) or Preprocess(size=size)
    preprocess = base.model_copy(update={**given, "size": size})
    if known is None and (assumed := [name for name in fields if name not in given]):
        values = ", ".join(f"{name} {getattr(preprocess, name)}" for name in assumed)
        reporter.warn(
            f"{Path(config.path).name} does not say how its input is made. ASSUMED: {values}. "
            "If the model was trained otherwise its accuracy here is wrong: "
            "give --mean --std --interpolation --crop-pct --crop-mode."
        )
    names = config.class_names or (known.class_names if known else tuple(str(i) for i in range(num_classes)))
    if len(names) != num_classes:
        raise UsageError(
            f"--class-names gives {len(names)} names, and the model has {num_classes} classes.",
            hint="Name every class, in the order of the outputs.",
        )
    if known:
        return known.model_copy(update={"preprocess": preprocess, "class_names": tuple(names)})
    return ModelSpec(arch=arch, num_classes=num_classes, class_names=tuple(names), preprocess=preprocess)
