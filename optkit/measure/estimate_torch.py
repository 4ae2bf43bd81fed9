"""A torch module → its operations, by running it on shapes alone (the meta device)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from optkit.measure.estimate_ops import Op, convolution

ELEMENTWISE = {
    "relu": "relu",
    "hardtanh": "relu",
    "leaky_relu": "relu",
    "silu": "silu",
    "gelu": "gelu",
    "hardswish": "hardswish",
    "sigmoid": "sigmoid",
    "hardsigmoid": "sigmoid",
    "tanh": "sigmoid",
    "add": "add",
    "sub": "add",
    "rsub": "add",
    "native_batch_norm": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "max_pool2d_with_indices": "pool",
    "avg_pool2d": "pool",
    "_adaptive_avg_pool2d": "pool",
    "mean": "reduce",
    "sum": "reduce",
    "max": "reduce",
    "amax": "reduce",
    "var": "reduce",
    "linalg_vector_norm": "reduce",
    **dict.fromkeys(
        (
            "mul",
            "div",
            "addcmul",
            "maximum",
            "clamp_min",
            "clamp",
            "pow",
            "exp",
            "sqrt",
            "rsqrt",
            "sin",
            "cos",
        ),
        "mul",
    ),
}
COPY = "copy"  # cat, clone, pad, index, roll, resize and what else moves values
ALIASES = ("_unsafe_view", "as_strided")
PRODUCT = ("addmm", "mm", "bmm", "baddbmm")


def module_ops(module: nn.Module, size: int) -> list[Op]:
    """Operations of a module in eval mode on one image of `size` pixels; its weights stay where they are."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    image = torch.empty(1, 3, size, size, device="meta")
    tracer = _Tracer(image)
    with torch.no_grad(), tracer, _Attention(tracer):
        torch.func.functional_call(module, shapes, image)
    return tracer.ops


class _Tracer(TorchDispatchMode):
    """Notes every operation that depends on the image."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self._numbers = {_storage(image): 0}
        self._next = 1
        self._alive = [image]  # a storage that is freed could lend its address to another

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self._note(func._schema.name.removeprefix("aten::"), args, result)
        return result

    def _note(self, name: str, args: Sequence[Any], result: Any) -> None:
        inputs, outputs = _tensors(args), _tensors(result if isinstance(result, tuple | list) else (result,))
        if not outputs or not any(self.depends(tensor) for tensor in inputs):
            return
        name = name if name.startswith("_") else name.rstrip("_")
        if name in ALIASES:
            self._numbers[_storage(outputs[0])] = self._numbers[_storage(inputs[0])]
            self._alive.append(outputs[0])
            return
        if not outputs[0].is_floating_point():
            return
        reads = self.reads(inputs)
        writes = (self.new(outputs[0]), outputs[0].numel())
        if name == "convolution":
            self.ops.append(_convolution(inputs, outputs[0], args[8], reads, writes))
        elif name in PRODUCT:
            self.ops.append(_product(inputs[-2:], reads, writes, both=len(reads) > 1))
        else:
            kind = ELEMENTWISE.get(name, COPY)
            strangers = [tensor for tensor in inputs if not self.depends(tensor) and tensor.ndim]
            promotes = kind in ("add", "mul", COPY) and any(
                tensor.is_floating_point() for tensor in strangers
            )
            self.ops.append(Op(kind, reads, writes, promotes=promotes))

    def depends(self, tensor: Tensor) -> bool:
        """Whether the values of `tensor` come from the image."""
        return _storage(tensor) in self._numbers

    def reads(self, inputs: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
        """The tensors among `inputs` that come from the image."""
        return tuple(
            (self._numbers[_storage(tensor)], tensor.numel()) for tensor in inputs if self.depends(tensor)
        )

    def new(self, tensor: Tensor) -> int:
        """A number for what was just written to `tensor`."""
        self._alive.append(tensor)
        self._numbers[_storage(tensor)] = self._next
        self._next += 1
        return self._next - 1


class _Attention(TorchFunctionMode):
    """Notes attention as the one operation that it is on a GPU; on shapes torch would take it apart."""

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not scaled_dot_product_attention or not self._tracer.depends(args[0]):
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        *batch, heads, tokens, _ = (1, *query.shape) if query.ndim == 3 else query.shape
        # A GPU's kernels lay heads side by side, so that joining them is no copy.
        result = torch.empty(*batch, tokens, heads, value.shape[-1], device="meta").transpose(-2, -3)
        result = result[0] if query.ndim == 3 else result
        reads = self._tracer.reads(args[:3])
        pairs = query.numel() // query.shape[-1] * key.shape[-2]
        self._tracer.ops.append(
            Op(
                "attention",
                reads,
                (self._tracer.new(result), result.numel()),
                macs=pairs * (query.shape[-1] + value.shape[-1]),
                width=key.shape[-2],
                depth=query.shape[-1] + value.shape[-1],
            )
        )
        return result


def _convolution(
    inputs: Sequence[Tensor],
    output: Tensor,
    groups: int,
    reads: tuple[tuple[int, int], ...],
    writes: tuple[int, int],
) -> Op:
    image, weight = inputs[:2]
    return convolution(tuple(image.shape), tuple(weight.shape), tuple(output.shape), groups, reads, writes)


def _product(
    operands: Sequence[Tensor], reads: tuple[tuple[int, int], ...], writes: tuple[int, int], both: bool
) -> Op:
    first, second = operands
    depth, width = first.shape[-1], second.shape[-1]
    kind = "attention" if both else "linear"
    weights = 0 if both else second.numel()
    return Op(kind, reads, writes, macs=writes[1] * depth, width=width, depth=depth, weights=weights)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [entry for entry in value if isinstance(entry, Tensor)]
    return found
