"""Architectures → torch modules without weights."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from timm.layers import DropPath
from timm.models.vgg import VGG
from torch import nn

from optkit.core.errors import UsageError
from optkit.core.types import HeadSpec, ModelSpec, Preprocess, TrainedOn
from optkit.models.head import last_linear, make_head
from optkit.models.names import ALIASES, timm_name
from optkit.models.scaling import create, parse_scaled
from optkit.models.widths import apply_widths

# timm's argument global_pool.
TIMM_POOLING = {"avg": "avg", "max": "max", "catavgmax": "catavgmax", "flatten": ""}
IMAGENET_CLASSES = 1000
OTHERS = "Choose another architecture: b0…b7, lite0…lite4, or most timm names."


def check_arch(arch: str) -> None:
    """UsageError, with the nearest name, for an architecture that neither optkit nor timm knows."""
    if parse_scaled(arch) or timm.is_model(timm_name(arch).split(".")[0]):
        return
    near = difflib.get_close_matches(arch, [*ALIASES, *timm.list_models()], n=3, cutoff=0.7)
    raise UsageError(
        f"Unknown architecture {arch!r}.",
        hint=f"Did you mean {' or '.join(near)}?"
        if near
        else f"Known: {', '.join(ALIASES)}, and every timm name.",
    )


def build(
    arch: str, num_classes: int, head: HeadSpec | None = None, size: int | None = None, drop_path: float = 0.0
) -> nn.Module:
    """The architecture with random weights and a head of `num_classes`: its own, or `head`.

    `size` is that of the images, which a head on the whole feature map depends on; None: the architecture's own.
    `drop_path` is the rate of stochastic depth (arXiv 1603.09382). UsageError for what the architecture cannot take.

    Batch normalisation gets PyTorch's momentum of 0.1: the 0.01 of the `tf_` models is meant for hundreds of
    epochs, and after a short fine-tuning would leave statistics that still belong to the old data.
    """
    check_arch(arch)
    module = _create(arch, num_classes, head, drop_path)
    if head is not None:
        _attach(head, module, arch, num_classes, size)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1
    return module


def _create(arch: str, num_classes: int, head: HeadSpec | None, drop_path: float) -> nn.Module:
    """timm's module, with the pooling of `head` and stochastic depth where they are asked for."""
    options: dict[str, Any] = {}
    if head is not None and head.pooling is not None:
        options["global_pool"] = TIMM_POOLING[head.pooling]
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        module = create(arch, num_classes, options)
    except (TypeError, AssertionError) as error:  # how timm refuses an argument
        if "drop_path" in str(error):
            raise _no_drop_path(arch) from None
        if "global_pool" not in options:
            raise
        raise UsageError(
            f"{arch!r} cannot take another pooling.", why=str(error), hint="Leave the pooling out."
        ) from None
    if drop_path and not _skips_blocks(module):
        raise _no_drop_path(arch)
    return module


def _skips_blocks(module: nn.Module) -> bool:
    """Whether drop-path acts anywhere: EfficientNet's blocks without a shortcut hold one that they never call."""
    return any(
        isinstance(layer, DropPath) and layer.drop_prob and getattr(block, "has_skip", True)
        for block in module.modules()
        for layer in block.children()
    )


def _no_drop_path(arch: str) -> UsageError:
    return UsageError(
        f"{arch!r} knows no drop-path.",
        why="There are no residual blocks in it that timm could skip.",
        hint="Leave drop-path out; dropout in the head works with every architecture.",
    )


def _attach(head: HeadSpec, module: nn.Module, arch: str, num_classes: int, size: int | None) -> None:
    """Give `module`, which timm made with the pooling of `head`, its other layers.

    What an architecture has between pooling and classifier (MobileNetV3's last convolution) is pretrained and
    stays. VGG's two layers of 4,096 are its old head: they go where a pooling is asked for.
    """
    if head.pooling and isinstance(module, VGG):
        module.pre_logits = nn.Identity()
        module.head.reset(num_classes, TIMM_POOLING[head.pooling], in_features=module.num_features)
    if head.pooling == "flatten":
        in_features = _flat_width(module, arch, size or default_preprocess(arch).size)
    else:
        in_features = last_linear(classifier(module, arch)).in_features
        if head.pooling == "catavgmax" and in_features != 2 * module.num_features:
            raise UsageError(
                f"{arch!r} cannot take the pooling 'catavgmax'.",
                why="It has pretrained layers after the pooling, which fit its own width only.",
                hint="Use avg or max.",
            )
    if head.pooling == "flatten" or head.hidden or head.dropout:
        module.set_submodule(_classifier_name(module, arch), make_head(in_features, num_classes, head))


def _flat_width(module: nn.Module, arch: str, size: int) -> int:
    """Length of the whole feature map of an image of `size` pixels."""
    module.set_submodule(_classifier_name(module, arch), nn.Flatten())
    was_training = module.training
    width = _answer(module, arch, size).shape[1]
    module.train(was_training)
    return width


def _classifier_name(module: nn.Module, arch: str) -> str:
    head = module.get_classifier()
    name = next((name for name, layer in module.named_modules() if layer is head), None)
    if name is None:
        raise UsageError(f"{arch!r} cannot get a new head.", why="It has several classifiers.", hint=OTHERS)
    return name


def rebuild(spec: ModelSpec, device: str = "meta") -> nn.Module:
    """The module that `spec` describes, pruned widths included; on the meta device it has no weights yet."""
    with torch.device(device):
        module = build(spec.arch, spec.num_classes, spec.head, spec.preprocess.size)
        apply_widths(module, spec.pruning or {})
    return module


def bare_spec(arch: str, num_classes: int | None) -> ModelSpec:
    """Spec of an architecture that nothing was trained with; `num_classes` None: ImageNet's 1,000."""
    return ModelSpec(
        arch=arch,
        num_classes=num_classes or IMAGENET_CLASSES,
        class_names=(),
        preprocess=default_preprocess(arch),
    )


def rebuild_at(spec: ModelSpec, size: int) -> nn.Module:
    """The module of `spec` without weights, in eval mode; UsageError when it cannot take images of `size`."""
    module = rebuild(spec)
    with torch.device("meta"):  # where tensors go that a network makes on its way
        check_size(module, spec.arch, size, spec.preprocess.size)
    return module


def classifier(module: nn.Module, arch: str) -> nn.Linear | nn.Sequential:
    """The head of `module`, which ends in one linear layer; UsageError when it is made otherwise."""
    head = module.get_classifier()
    if isinstance(head, nn.Linear) or (isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear)):
        return head
    raise UsageError(
        f"{arch!r} cannot get a new head.",
        why=f"Its classifier does not end in a linear layer: it is a {type(head).__name__}.",
        hint=OTHERS,
    )


def check_size(module: nn.Module, arch: str, size: int, own_size: int | None = None) -> None:
    """UsageError when `module` cannot take images of `size`; leaves it in eval mode.

    `own_size` is what it was made for; default: the architecture's own.
    """
    _answer(module, arch, size, own_size)


def _answer(module: nn.Module, arch: str, size: int, own_size: int | None = None) -> torch.Tensor:
    """What `module` makes of a black image; leaves it in eval mode."""
    image = next(module.parameters()).new_zeros(1, 3, size, size)
    try:
        with torch.inference_mode():
            logits: torch.Tensor = module.eval()(image)
    except (AssertionError, RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"{arch!r} cannot take images of {size} pixels.",
            why=lines[0],
            hint=f"Its own size is {own_size or default_preprocess(arch).size}: try that for --size.",
        ) from None
    return logits


def new_spec(
    arch: str,
    class_names: tuple[str, ...],
    size: int | None,
    native_size: int | None,
    trained_on: tuple[TrainedOn, ...],
    head: HeadSpec | None = None,
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
        head=head,
        trained_on=trained_on,
    )


def fits_pretrained(arch: str, size: int) -> bool:
    """Whether pretrained features suit images of `size`: not when they are less than half of the weights' own."""
    return size > default_preprocess(arch).size / 2


def default_preprocess(arch: str) -> Preprocess:
    """The preprocessing with which timm evaluates the architecture's default weights."""
    check_arch(arch)
    if scaled := parse_scaled(arch):
        return default_preprocess(scaled.base).model_copy(update={"size": scaled.size})
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
