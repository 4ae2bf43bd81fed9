"""Architectures → torch modules without weights."""

from __future__ import annotations

import difflib

import timm
import torch
from torch import nn

from optkit.core.errors import UsageError
from optkit.core.types import ModelSpec, Preprocess, TrainedOn
from optkit.models.names import ALIASES, timm_name
from optkit.models.widths import apply_widths


def check_arch(arch: str) -> None:
    """UsageError, with the nearest name, for an architecture that neither optkit nor timm knows."""
    if timm.is_model(timm_name(arch).split(".")[0]):
        return
    near = difflib.get_close_matches(arch, [*ALIASES, *timm.list_models()], n=3, cutoff=0.7)
    raise UsageError(
        f"Unknown architecture {arch!r}.",
        hint=f"Did you mean {' or '.join(near)}?"
        if near
        else f"Known: {', '.join(ALIASES)}, and every timm name.",
    )


def build(arch: str, num_classes: int) -> nn.Module:
    """The architecture with random weights and a head of `num_classes`.

    Batch normalisation gets PyTorch's momentum of 0.1: the 0.01 of the `tf_` models is meant for hundreds of
    epochs, and after a short fine-tuning would leave statistics that still belong to the old data.
    """
    check_arch(arch)
    module: nn.Module = timm.create_model(timm_name(arch), num_classes=num_classes)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1
    return module


def rebuild(spec: ModelSpec, device: str = "meta") -> nn.Module:
    """The module that `spec` describes, pruned widths included; on the meta device it has no weights yet."""
    with torch.device(device):
        module = build(spec.arch, spec.num_classes)
        apply_widths(module, spec.pruning or {})
    return module


def classifier(module: nn.Module, arch: str) -> nn.Linear:
    """The last layer of `module`; UsageError when it is not one linear layer."""
    head = module.get_classifier()
    if not isinstance(head, nn.Linear):
        raise UsageError(
            f"{arch!r} cannot get a new head.",
            why=f"Its classifier is not one linear layer but {type(head).__name__}.",
            hint="Choose another architecture: b0…b7, lite0…lite4, or most timm names.",
        )
    return head


def check_size(module: nn.Module, arch: str, size: int) -> None:
    """UsageError when `module` cannot take images of `size`; leaves it in eval mode."""
    image = next(module.parameters()).new_zeros(1, 3, size, size)
    try:
        with torch.inference_mode():
            module.eval()(image)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"{arch!r} cannot take images of {size} pixels.",
            why=_first_line(error),
            hint=f"Its own size is {default_preprocess(arch).size}: try that for --size.",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def new_spec(
    arch: str,
    class_names: tuple[str, ...],
    size: int | None,
    native_size: int | None,
    trained_on: tuple[TrainedOn, ...],
) -> ModelSpec:
    """Spec of a new classifier.

    `size` None: the architecture's own, or less where the data's is less and the architecture lets it.
    """
    own = default_preprocess(arch)
    model_config = timm.get_pretrained_cfg(timm_name(arch))
    is_fixed = model_config is not None and model_config.fixed_input_size
    chosen = size or (own.size if is_fixed else min(own.size, native_size or own.size))
    return ModelSpec(
        arch=arch,
        num_classes=len(class_names),
        class_names=class_names,
        preprocess=own.model_copy(update={"size": chosen}),
        trained_on=trained_on,
    )


def fits_pretrained(arch: str, size: int) -> bool:
    """Whether pretrained features suit images of `size`: not when they are less than half of the weights' own."""
    return size > default_preprocess(arch).size / 2


def default_preprocess(arch: str) -> Preprocess:
    """The preprocessing with which timm evaluates the architecture's default weights."""
    check_arch(arch)
    model_config = timm.get_pretrained_cfg(timm_name(arch)) or {}
    data = timm.data.resolve_data_config(pretrained_cfg=dict(vars(model_config)) if model_config else {})
    return Preprocess(
        size=data["input_size"][-1],
        mean=data["mean"],
        std=data["std"],
        interpolation=data["interpolation"]
        if data["interpolation"] in ("bilinear", "nearest")
        else "bicubic",
        crop_pct=data["crop_pct"],
        crop_mode="squash" if data["crop_mode"] == "squash" else "center",
    )
