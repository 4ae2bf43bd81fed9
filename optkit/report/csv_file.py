"""Rows and what they differ by as CSV: one line for each model, runtime and batch size."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from optkit.report.base import Interval
from optkit.report.deltas import PERCENTILES
from optkit.report.schema import Delta, Row

# A spreadsheet takes a text that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(rows: Sequence[Row]) -> str:
    """Figures in full, shares from 0 to 1; an empty cell is not known, and `not_measured` says why."""
    lines = [{**_own(row), **_against(row.against_baseline)} for row in rows]
    stream = io.StringIO()
    names = list(lines[0]) if lines else ["name"]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in line.items()} for line in lines)
    return stream.getvalue()


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _own(row: Row) -> dict[str, Any]:
    gaps = row.not_measured | row.refused
    fields = ("name", "key", "format", "precision", "runtime", "batch", "computes", "is_partial", "samples")
    return {
        **{name: getattr(row, name) for name in fields},
        **_percentiles(row),
        "images_per_s": row.throughput,
        "offline_images_per_s": row.offline and row.offline.images_per_s,
        "server_queries_per_s": row.server and row.server.queries_per_s,
        "server_bound_ms": row.server and row.server.bound_ms,
        "peak_rss_bytes": row.memory and row.memory.peak_rss_bytes,
        "gpu_bytes": row.memory and row.memory.gpu_bytes,
        "joules_per_image": row.energy and row.energy.joules_per_image,
        "top1": row.top1,
        **_bounds("top1", row.top1_interval),
        "images": row.n,
        "ece": row.ece,
        **_bounds("ece", row.ece_interval),
        "agreement": row.agreement,
        **{name: getattr(row, name) for name in ("macs", "params", "activations", "size_bytes", "on_front")},
        "not_measured": "; ".join(f"{name}: {why}" for name, why in gaps.items()),
    }


def _percentiles(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in PERCENTILES:
        found[f"{name}_ms"] = (row.latency_ms or {}).get(name)
        found |= _bounds(f"{name}_ms", row.latency_intervals.get(name))
    return found


def _bounds(name: str, bounds: Interval | None) -> dict[str, Any]:
    low, high = bounds or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _against(delta: Delta | None) -> dict[str, Any]:
    """What the row differs by from its reference."""
    names = ("reference", "reference_runtime", "speedup", "verdict", "no_verdict", "rounds", "not_comparable")
    more = ("other_images", "paired", "lost", "won", "p_value", "size_ratio", "macs_ratio")
    return {
        **{name: delta and getattr(delta, name) for name in names},
        **_bounds("latency_ratio", delta.latency_interval if delta else None),
        "top1_difference": delta and delta.top1_difference,
        **_bounds("top1_difference", delta.top1_interval if delta else None),
        **{name: delta and getattr(delta, name) for name in more},
    }
