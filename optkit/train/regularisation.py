"""Regularisers that act on batches and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from optkit.core.errors import UsageError
from optkit.train.config import TrainConfig

Mixer = Callable[[list[torch.Tensor], torch.Tensor], tuple[list[torch.Tensor], torch.Tensor]]


def make_mixer(options: TrainConfig, classes: int) -> Mixer | None:
    """Mixup and CutMix of a batch, by torchvision; None without them. With both, one of them per batch.

    Zhang et al., mixup (arXiv 1710.09412); Yun et al., CutMix (arXiv 1905.04899).
    """
    kinds = []
    if options.mixup:
        kinds.append(v2.MixUp(alpha=options.mixup, num_classes=classes, labels_getter=_last))
    if options.cutmix:
        kinds.append(v2.CutMix(alpha=options.cutmix, num_classes=classes, labels_getter=_last))
    if not kinds:
        return None

    def mix(views: list[torch.Tensor], labels: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        if options.cutmix and len({view.shape[-1] for view in views}) > 1:
            raise UsageError(
                "CutMix needs a teacher and a student of the same input size.",
                hint="Give the student the teacher's --size, or use --mixup.",
            )
        if len(labels) < 2:
            return views, labels
        kind = kinds[int(torch.randint(len(kinds), ()))]
        # Of plain tensors torchvision takes only the first for an image.
        *mixed, shares = kind(*map(tv_tensors.Image, views), labels)
        return [view.as_subclass(torch.Tensor) for view in mixed], shares

    return mix


def _last(inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return inputs[-1]


def l1_norm(module: nn.Module) -> torch.Tensor:
    """Sum of the absolute weights that learn; norms and biases (vectors) are exempt, as from weight decay."""
    weights = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    return torch.stack([weight.abs().sum() for weight in weights]).sum()


def make_average(module: nn.Module, options: TrainConfig) -> ModelEmaV3 | None:
    """A moving average of the weights; its decay grows from 0, so that short trainings forget their start."""
    return ModelEmaV3(module, decay=options.ema, use_warmup=True) if options.ema else None


@contextmanager
def averaged(module: nn.Module, average: ModelEmaV3 | None) -> Iterator[None]:
    """Within, `module` has the averaged weights."""
    if average is None:
        yield
        return
    own = {name: value.detach().clone() for name, value in module.state_dict().items()}
    module.load_state_dict(dict(zip(own, average.module.state_dict().values(), strict=True)))
    try:
        yield
    finally:
        module.load_state_dict(own)
