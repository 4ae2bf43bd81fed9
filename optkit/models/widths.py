"""Widths of a pruned network as plain numbers, so that it can be rebuilt without unpickling it."""

from __future__ import annotations

import torch
from torch import nn

FIELDS = {
    nn.Conv2d: ("in_channels", "out_channels", "groups"),
    nn.BatchNorm2d: ("num_features",),
    nn.Linear: ("in_features", "out_features"),
}


def _fields(module: nn.Module) -> tuple[str, ...]:
    return next((fields for kind, fields in FIELDS.items() if isinstance(module, kind)), ())


def read_widths(pruned: nn.Module, dense: nn.Module) -> dict[str, dict[str, int]]:
    """Widths of every module of `pruned` that differ from `dense`, by module name."""
    originals = dict(dense.named_modules())
    found = {}
    for name, module in pruned.named_modules():
        widths = {field: getattr(module, field) for field in _fields(module)}
        if any(getattr(originals[name], field) != width for field, width in widths.items()):
            found[name] = widths
    return found


def apply_widths(module: nn.Module, widths: dict[str, dict[str, int]]) -> None:
    """Resize the layers of a dense `module` to `widths`; weights become uninitialised."""
    layers = dict(module.named_modules())
    for name, fields in widths.items():
        layer = layers.get(name)
        if layer is None or set(fields) != set(_fields(layer)):
            raise ValueError(f"pruned layer {name!r} does not exist in this architecture")
        for field, width in fields.items():
            setattr(layer, field, width)
        if isinstance(layer, nn.Conv2d):
            shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
            _resize(layer, shape, layer.out_channels)
        elif isinstance(layer, nn.Linear):
            _resize(layer, (layer.out_features, layer.in_features), layer.out_features)
        else:
            _resize(layer, (layer.num_features,), layer.num_features)
            for buffer in ("running_mean", "running_var"):
                setattr(layer, buffer, torch.empty(layer.num_features))


def _resize(layer: nn.Module, weight: tuple[int, ...], bias: int) -> None:
    layer.weight = nn.Parameter(torch.empty(weight))
    if layer.bias is not None:
        layer.bias = nn.Parameter(torch.empty(bias))
