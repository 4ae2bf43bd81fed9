"""The time of a network layer by layer, beside the least that the machine's ceilings allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optkit.measure.counts import Cost, Layer

if TYPE_CHECKING:
    from optkit.measure.kernel_origins import Kernel
    from optkit.measure.roofline import Ceilings

ABOVE_LIMIT = (
    "Above 100 % of its limit, a layer bound by memory found its data in a cache, as the ceiling is that of copies in "
    "main memory; one bound by compute has a kernel faster than the dense ones that set the ceiling."
)
ADDED = "{} (added by the runtime)"


@dataclass
class _Part:
    """Kernels that stand for the same counted layers, or for one node that is not counted."""

    name: str
    type: str
    layers: list[Layer]
    ms: float = 0.0
    precision: str = ""


def layer_rows(
    cost: Cost,
    kernels: Sequence[Kernel],
    nodes: Mapping[str, tuple[str, ...]],
    rest_ms: float,
    ceilings: Ceilings | None,
    batch: int = 1,
) -> dict[str, Any]:
    """Every layer with its share of the run, its work for `batch` images and its limit, in the order of execution.

    `rest_ms` is what a run takes beside the kernels.
    `nodes` are the nodes or modules that each kernel stands for, by the kernel's name. A kernel counts for the
    counted layers among them, whatever is fused into it; of the others each has a row with 0 MACs and no limit. What
    the runtime adds, as changes of layout, is summed by its kind.
    """
    parts = _parts(cost, kernels, nodes)
    total_ms = rest_ms + sum(part.ms for part in parts)
    rows = [_row(part, total_ms, ceilings, batch) for part in parts]
    limited = [row["limit_ms"] for row in rows if row["macs"]]
    limit_ms = sum(limited) if limited and None not in limited else None
    missing = {layer.name for layer in cost.layers} - {layer.name for part in parts for layer in part.layers}
    return {
        "total_ms": total_ms,
        "unmapped_ms": rest_ms,
        "counted_ms": sum(part.ms for part in parts if part.layers),
        "limit_ms": limit_ms,
        "of_limit": limit_ms / total_ms if limit_ms is not None and total_ms > 0 else None,
        "without_time": sorted(missing),
        "note": ABOVE_LIMIT if any((row["of_limit"] or 0) > 1 for row in rows) else "",
        "layers": rows,
    }


def _parts(cost: Cost, kernels: Sequence[Kernel], nodes: Mapping[str, tuple[str, ...]]) -> list[_Part]:
    counted = {layer.name: layer for layer in cost.layers}
    parts: dict[str, _Part] = {}
    owners: dict[str, str] = {}  # of two kernels that stand for the same layer the first has its work
    for kernel in kernels:
        names = nodes[kernel.name]
        layers = [counted[name] for name in names if name in counted]
        key = next((owners[layer.name] for layer in layers if layer.name in owners), "")
        if not key:
            key = " + ".join(layer.name for layer in layers) or next(iter(names), ADDED.format(kernel.kind))
            kind = layers[0].type if layers else kernel.kind
            parts.setdefault(key, _Part(key, kind, layers))
            owners |= {layer.name: key for layer in layers}
        parts[key].ms += kernel.ms
        if layers:
            parts[key].precision = kernel.precision
    return list(parts.values())


def _row(part: _Part, total_ms: float, ceilings: Ceilings | None, batch: int) -> dict[str, Any]:
    macs = batch * sum(layer.macs for layer in part.layers)
    moved = sum(layer.bytes_at(batch) for layer in part.layers)
    precision = part.precision or next((layer.precision for layer in part.layers), "")
    limit_ms, bound = _limit(macs, moved, precision, ceilings)
    return {
        "name": part.name,
        "type": part.type,
        "precision": precision or None,
        "ms": part.ms,
        "share": part.ms / total_ms if total_ms > 0 else 0.0,
        "macs": macs,
        "bytes": moved,
        "macs_per_byte": macs / moved if moved else None,
        "limit_ms": limit_ms,
        "of_limit": limit_ms / part.ms if limit_ms is not None and part.ms > 0 else None,
        "bound": bound,
    }


def _limit(
    macs: int, moved: int, precision: str, ceilings: Ceilings | None
) -> tuple[float | None, str | None]:
    """The least milliseconds, and which ceiling sets them; None where nothing is counted or a ceiling is unknown."""
    peak = ceilings.macs_per_s.get(precision) if ceilings else None
    bytes_per_s = ceilings.bytes_per_s if ceilings else None
    if peak is None or bytes_per_s is None or not macs:
        return None, None
    compute_ms, memory_ms = 1000 * macs / peak, 1000 * moved / bytes_per_s
    return max(compute_ms, memory_ms), "compute" if compute_ms >= memory_ms else "memory"
