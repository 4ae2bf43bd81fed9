"""What a network's operations cost a GPU, as figures that a sum of times can be fitted to.

An operation is a node of the network as it runs, from wherever it was read (a torch module, an ONNX graph):
`features` knows nothing of either. Figures are for one image under PyTorch's automatic mixed precision, because
the published throughputs were measured so: convolutions and matrix products read and write 2 bytes per value, but
normalisation over channels and everything that meets a parameter of 4 bytes (layer scale, position embeddings)
writes 4, and the next matrix product waits for a cast.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

HALF, SINGLE = 2, 4  # bytes of a value
# Multiply-accumulates that a GPU does in the time of one byte from memory: 38 (RTX 3090) to 82 (RTX 4090).
BALANCE = 64
ALIGNED = 8  # channels that matrix units want a multiple of, with the channels last
TILE_WIDTH, TILE_DEPTH = 64, 32  # output channels and products that a matrix unit takes at once

PRODUCTS = ("conv", "pointwise", "grouped", "depthwise", "linear", "attention")
IN_SINGLE = ("layer_norm", "group_norm", "softmax")  # what autocast runs in 4 bytes
# All other kinds keep the width of what they read: batch_norm, relu, silu, gelu, hardswish, sigmoid, add, mul, pool,
# reduce, copy.


@dataclass(frozen=True)
class Op:
    """One operation on one image.

    `reads` and `writes` are tensors by number, with the values read of them: what it reads of parameters is in
    `weights`, the number of their values. A product sums `depth` values for each of `width` channels in each of
    its `groups`. `promotes` when a parameter of 4 bytes takes part in an elementwise operation.
    """

    kind: str
    reads: tuple[tuple[int, int], ...]
    writes: tuple[int, int]
    macs: int = 0
    width: int = 1
    depth: int = 1
    groups: int = 1
    kernel: int = 1
    stride: int = 1
    weights: int = 0
    promotes: bool = False
    unknown: str = ""  # the operator's name, where what it computes is not known: it is counted as a copy


def convolution(
    image: Sequence[int],
    weight: Sequence[int],
    output: Sequence[int],
    groups: int,
    reads: tuple[tuple[int, int], ...],
    writes: tuple[int, int],
) -> Op:
    """A convolution by the shapes of its input, weight and output, all with their batch or channels first."""
    kernel, depth = math.prod(weight[2:]), math.prod(weight[1:])
    places = math.prod(output[2:])
    if groups == 1:
        kind = "pointwise" if kernel == 1 else "conv"
        kind = "linear" if kernel == 1 and math.prod(image[2:]) == 1 else kind
    else:
        kind = "depthwise" if groups == image[1] else "grouped"
    return Op(
        kind,
        reads,
        writes,
        macs=math.prod(output) * depth,
        width=output[1] // groups,
        depth=depth,
        groups=groups,
        kernel=kernel,
        stride=max(1, round(math.sqrt(math.prod(image[2:]) / max(places, 1)))),
        weights=math.prod(weight),
    )


def features(ops: Sequence[Op]) -> dict[str, float]:
    """Figures of one image by name: `*_macs`, `*_tiled`, `*_excess` in MACs, `launches` and `kernels` in
    operations, `weights` in values, all others in bytes; `fused/…` are what is left of them when
    neighbouring elementwise operations run as one, as a compiled network's do."""
    found: dict[str, float] = defaultdict(float)
    widths = _widths(ops)
    levels, inside = _fusion(ops)
    for op in ops:
        found["launches"] += 1
        found["weights"] += op.weights
        if op.kind in PRODUCTS:
            _add_product(op, found)
        else:
            found["fused/kernels"] += op.writes[0] not in inside
        for name, amount in _eager_bytes(op, widths):
            found[name] += amount
        for name, amount in _fused_bytes(op, widths, levels, inside):
            found[name] += amount
    return dict(found)


def _widths(ops: Sequence[Op]) -> dict[int, int]:
    """Bytes per value of every tensor; an image has 4."""
    widths: dict[int, int] = {}
    for op in ops:
        if op.kind in PRODUCTS:
            width = HALF
        elif op.kind in IN_SINGLE or op.promotes:
            width = SINGLE
        else:
            width = max((widths.get(tensor, SINGLE) for tensor, _ in op.reads), default=SINGLE)
        widths[op.writes[0]] = width
    return widths


def _add_product(op: Op, found: dict[str, float]) -> None:
    """The arithmetic of a convolution or matrix product, and what of it the matrix units cannot use."""
    found[f"{op.kind}_macs"] += op.macs
    if op.kind == "depthwise":
        found[f"depthwise_{_window(op)}_macs"] += op.macs
        return
    positions = op.macs / (op.width * op.depth * op.groups)
    tiled = positions * op.groups * _up(op.width, TILE_WIDTH) * _up(op.depth, TILE_DEPTH)
    found[f"{op.kind}_tiled"] += tiled
    values = op.writes[1] + sum(count for _, count in op.reads)
    found[f"{op.kind}_excess"] += max(0.0, op.macs - BALANCE * HALF * values)
    if op.width % ALIGNED or (op.depth // op.kernel) % ALIGNED:
        found["unaligned"] += HALF * values
        found["unaligned_macs"] += op.macs
    if op.kind == "conv" and op.kernel == 9 and op.stride == 1:
        found["conv_3x3_macs"] += op.macs  # which Winograd's and other quick algorithms exist for


def _window(op: Op) -> str:
    side = 3 if op.kernel <= 9 else 5 if op.kernel <= 25 else 7
    return f"{side}{'s' if op.stride > 1 else ''}"


def _eager_bytes(op: Op, widths: Mapping[int, int]) -> Iterator[tuple[str, float]]:
    """Traffic when every operation reads its inputs from memory and writes its result there."""
    tensor, count = op.writes
    reads = [(values, widths.get(read, SINGLE)) for read, values in op.reads]
    if op.kind in PRODUCTS:
        yield f"{op.kind}_in", HALF * sum(values for values, _ in reads)
        yield f"{op.kind}_out", HALF * count
        yield "cast", (SINGLE + HALF) * sum(values for values, width in reads if width == SINGLE)
        if op.kind == "depthwise":
            yield f"depthwise_{_window(op)}", HALF * count
        return
    if op.kind in IN_SINGLE:
        yield "cast", (SINGLE + HALF) * sum(values for values, width in reads if width == HALF)
        reads = [(values, SINGLE) for values, _ in reads]
    yield op.kind, sum(values * width for values, width in reads) + count * widths[tensor]


def _fusion(ops: Sequence[Op]) -> tuple[dict[int, int], set[int]]:
    """Per tensor its level, the products on the longest way to it, and the tensors that live inside a kernel:
    those that are made and read by elementwise operations of one level only."""
    levels: dict[int, int] = {}
    maker: dict[int, Op] = {}
    readers: dict[int, list[Op]] = defaultdict(list)
    for op in ops:
        above = max((levels.get(tensor, 0) for tensor, _ in op.reads), default=0)
        levels[op.writes[0]] = above + (op.kind in PRODUCTS)
        maker[op.writes[0]] = op
        for tensor, _ in op.reads:
            readers[tensor].append(op)
    inside = {
        tensor
        for tensor, op in maker.items()
        if op.kind not in PRODUCTS
        and readers[tensor]
        and all(
            reader.kind not in PRODUCTS and levels[reader.writes[0]] == levels[tensor]
            for reader in readers[tensor]
        )
    }
    outside_read = {tensor for tensor in maker if maker[tensor].kind not in PRODUCTS}
    return {tensor: level for tensor, level in levels.items() if tensor in outside_read}, inside


def _fused_bytes(
    op: Op, widths: Mapping[int, int], levels: Mapping[int, int], inside: set[int]
) -> Iterator[tuple[str, float]]:
    """Traffic when elementwise operations of one level hand their results on without memory."""
    tensor, count = op.writes
    if op.kind in PRODUCTS:
        return
    kind = op.kind if op.kind in ("pool", "reduce", "copy") else "pointwise"
    kind = "norm" if op.kind in IN_SINGLE else kind
    level = levels[tensor]
    yield (
        f"fused/{kind}_in",
        sum(values * widths.get(read, SINGLE) for read, values in op.reads if levels.get(read) != level),
    )
    if tensor not in inside:
        yield f"fused/{kind}_out", count * widths[tensor]


def totals(ops: Sequence[Op]) -> tuple[int, int]:
    """MACs, and the values that convolutions and matrix products write ("activations")."""
    products = [op for op in ops if op.kind in PRODUCTS]
    return sum(op.macs for op in products), sum(op.writes[1] for op in products)


def unknown_kinds(ops: Sequence[Op]) -> list[str]:
    """Operators whose cost is not known."""
    return sorted({op.unknown for op in ops} - {""})


def _up(value: int, step: int) -> int:
    return step * math.ceil(value / step)
