"""Cost of one image in a torch module."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.module_tracker import ModuleTracker

from optkit.measure.counts import Cost, Layer, tally
from optkit.measure.formula import LayerShape

CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d


def module_cost(module: torch.nn.Module, size: int) -> Cost:
    """Count a module in eval mode by running it on shapes alone (the meta device); its weights stay."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    image = torch.empty(1, 3, size, size, device="meta")
    # The counter is the inner mode: it breaks operators down to those that it knows, and passes these on.
    traffic, counter = _Traffic(shapes.values()), FlopCounterMode(display=False)
    with torch.no_grad(), _layer_shapes(module) as layer_shapes, traffic.tracker, traffic, counter:
        torch.func.functional_call(module, shapes, image)
    macs = {name: sum(found.values()) // 2 for name, found in counter.get_flop_counts().items()}
    root = type(module).__name__
    leaves = {f"{root}.{name}": layer for name, layer in module.named_modules() if not any(layer.children())}
    moved = traffic.moved
    return Cost(
        macs=macs.get("Global", 0),
        params=sum(parameter.numel() for parameter in module.parameters()),
        activations=moved["Global"].activations,
        weight_bytes=moved["Global"].weight_bytes,
        activation_bytes=moved["Global"].activation_bytes,
        layers=[
            _layer(name.removeprefix(f"{root}."), leaves[name], count, moved[name])
            for name, count in macs.items()
            if name in leaves
        ],
        not_counted=tally(
            type(layer).__name__
            for name, layer in module.named_modules()
            if f"{root}.{name}" not in macs and _does_something(layer)
        ),
        shapes=layer_shapes,
    )


@dataclass
class _Moved:
    activations: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0


class _Traffic(TorchDispatchMode):
    """What the counted operators of every module read and write, by the names that FlopCounterMode has for it."""

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.tracker = ModuleTracker()
        self.moved: dict[str, _Moved] = defaultdict(_Moved)
        self._weights = {_storage(weight) for weight in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            read = [value for value in args if isinstance(value, torch.Tensor)]
            weights = [tensor for tensor in read if _storage(tensor) in self._weights]
            inputs = [tensor for tensor in read if _storage(tensor) not in self._weights]
            for name in self.tracker.parents:
                moved = self.moved[name]
                moved.activations += output.numel()
                moved.weight_bytes += sum(map(_bytes, weights))
                moved.activation_bytes += sum(map(_bytes, [*inputs, output]))
        return output


def _storage(tensor: torch.Tensor) -> int:
    """The same for a tensor and its views; tensors of the meta device have no address."""
    return tensor.untyped_storage()._cdata


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _layer(name: str, layer: nn.Module, macs: int, moved: _Moved) -> Layer:
    return Layer(
        name=name,
        type=type(layer).__name__,
        macs=macs,
        params=sum(weight.numel() for weight in layer.parameters()),
        activations=moved.activations,
        weight_bytes=moved.weight_bytes,
        activation_bytes=moved.activation_bytes,
        precision="fp32",
    )


def _does_something(layer: nn.Module) -> bool:
    """Whether a layer computes on its own, beside what the layers in it do: timm's normalisations hold others."""
    has_own = any(True for _ in layer.parameters(recurse=False)) or not any(layer.children())
    return has_own and not isinstance(layer, nn.Identity | nn.Dropout)


@contextmanager
def _layer_shapes(module: nn.Module) -> Iterator[dict[str, LayerShape]]:
    """Shapes of the convolutions and linear layers that run within this context, by their names."""
    found: dict[str, LayerShape] = {}

    def hook_of(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(layer: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            shape = _layer_shape(layer, args[0], output)
            if name in found:  # a layer that runs again
                shape = replace(
                    shape,
                    in_positions=shape.in_positions + found[name].in_positions,
                    out_positions=shape.out_positions + found[name].out_positions,
                )
            found[name] = shape

        return hook

    hooks = [
        layer.register_forward_hook(hook_of(name))
        for name, layer in module.named_modules()
        if isinstance(layer, CONVOLUTIONS | nn.Linear)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _layer_shape(layer: nn.Module, image: torch.Tensor, output: torch.Tensor) -> LayerShape:
    has_bias = getattr(layer, "bias", None) is not None
    if isinstance(layer, nn.Linear):
        positions = output.numel() // layer.out_features
        return LayerShape(layer.in_features, layer.out_features, 1, 1, positions, positions, has_bias)
    if not isinstance(layer, CONVOLUTIONS):
        raise TypeError(f"no formula for {type(layer).__name__}")
    return LayerShape(
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        kernel=math.prod(layer.kernel_size),
        groups=layer.groups,
        in_positions=math.prod(image.shape[2:]),
        out_positions=math.prod(output.shape[2:]),
        has_bias=has_bias,
    )
