"""Layers that stand in for others while a network trains, on the same weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class StandIn(nn.Module):
    """Does the work of `layer`, with its parameters and statistics."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


class SynchronisedBatchNorm(StandIn):
    """Batch normalisation over the images of all processes, so that several train like one.

    torch's own SyncBatchNorm has no CPU version. Serves timm's BatchNormAct2d too, whose dropout and activation
    follow the normalisation.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        if not layer.training:
            return layer(x)
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        x32 = x.float()
        own = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        sums = all_reduce(torch.cat([x32.sum(axes), own]))
        count = sums[-1].detach()
        # In two steps: the difference of two large sums would lose what is small beside them.
        mean = sums[:-1] / count
        centred = x32 - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach(), float(count))
        scale = layer.weight * torch.rsqrt(variance + layer.eps)
        out = (centred * scale.view(shape) + layer.bias.view(shape)).to(x.dtype)
        for name in ("drop", "act"):
            out = getattr(layer, name, nn.Identity())(out)
        return out

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, count: float) -> None:
        layer = self.layer
        layer.num_batches_tracked.add_(1)
        layer.running_mean.lerp_(mean, layer.momentum)
        layer.running_var.lerp_(variance * count / max(count - 1, 1), layer.momentum)


class FloatDepthwise(StandIn):
    """A depthwise convolution that is trained in FP32 within bf16 training on a CPU.

    oneDNN's gradient of depthwise convolutions is several times slower in bf16 than in FP32
    (benchmarks/finetune.py); without gradients bf16 is the faster one.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled() or not torch.is_autocast_enabled("cpu"):
            return self.layer(x)
        with torch.autocast("cpu", enabled=False):
            return self.layer(x.float()).to(x.dtype)


def put_stand_ins(module: nn.Module, processes: int, is_bf16: bool) -> None:
    """Replace in place what trains better otherwise: batch normalisation of several processes, and, for bf16 on a
    CPU, depthwise convolutions."""
    if processes > 1:
        _replace(module, lambda layer: isinstance(layer, _BatchNorm), SynchronisedBatchNorm)
    if is_bf16 and next(module.parameters()).device.type == "cpu":
        _replace(module, _is_depthwise, FloatDepthwise)


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


def _replace(module: nn.Module, is_meant: Callable[[nn.Module], bool], kind: type[StandIn]) -> None:
    for name, child in list(module.named_children()):
        if is_meant(child):
            setattr(module, name, kind(child))
        else:
            _replace(child, is_meant, kind)


def remove_stand_ins(module: nn.Module) -> None:
    """Put the layers back."""
    for name, child in list(module.named_children()):
        if isinstance(child, StandIn):
            setattr(module, name, child.layer)
        else:
            remove_stand_ins(child)


def plain_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The `state_dict` that `module` has without stand-ins."""
    state = module.state_dict()
    for name, child in module.named_modules():
        if isinstance(child, StandIn):
            for inner in child.layer.state_dict():
                state[f"{name}.{inner}"] = state.pop(f"{name}.layer.{inner}")
    return state
