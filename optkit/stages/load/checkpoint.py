"""A checkpoint from outside."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from optkit.core.errors import InputError, UsageError
from optkit.core.progress import Reporter
from optkit.core.types import Format, Output, Precision
from optkit.measure.cost import module_cost
from optkit.models.build import build, default_preprocess
from optkit.models.checkpoint import module_from_state, read_state, save_checkpoint, spec_of
from optkit.models.names import timm_name
from optkit.stages.load.config import Config
from optkit.stages.load.spec import complete


def take(config: Config, source: Path, target: Path, reporter: Reporter) -> Output:
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
    spec = complete(config, known, arch, num_classes, config.size or own.size, reporter, own)
    module = module_from_state(spec, state, str(source))
    save_checkpoint(module, spec, target)
    return Output(Format.TORCH, Precision.FP32, spec, module_cost(module, spec.preprocess.size).metrics())


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
