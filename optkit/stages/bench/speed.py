"""Timings of a candidate → the figures of its row."""

from __future__ import annotations

from typing import Any

import numpy as np

from optkit.measure.statistics import paired_gain, percentiles
from optkit.stages.bench.candidate import INTERRUPTED, Candidate, reason
from optkit.stages.bench.device_times import part_rows
from optkit.stages.bench.rounds import streams

SPEED = ("latency_ms", "throughput", "offline", "server", "memory", "energy")
MIN_TURNS = 3  # from which an interval says something


def speed(candidate: Candidate, batch: int, gaps: dict[str, str]) -> dict[str, Any]:
    """Percentiles and rates at one batch size; why what is missing is, in `gaps`."""
    timing = candidate.timings.get(batch)
    if timing is None or not timing.samples:
        why = latency_gap(candidate, batch)
        gaps |= dict.fromkeys(("latency_ms", "throughput", "memory", "energy"), why)
        return {**dict.fromkeys(SPEED), "parts": [], "latency_intervals": {}, "refused": {}, "samples": 0}
    if timing.memory is None:
        gaps["memory"] = "the process ended before it was read"
    summary = percentiles(timing.samples, timing.counts)
    return {
        "latency_ms": summary.values or None,
        "latency_intervals": {name: list(bounds) for name, bounds in summary.intervals.items()},
        "refused": summary.refused,
        "throughput": batch * len(timing.samples) / (sum(timing.samples) / 1000),  # images per second
        "samples": len(timing.samples),
        "offline": _offline(candidate, batch, gaps),
        "server": _server(candidate, batch, gaps),
        "memory": timing.memory,
        "energy": _energy(candidate, batch, gaps),
        "parts": part_rows(timing),
    }


def _offline(candidate: Candidate, batch: int, gaps: dict[str, str]) -> dict[str, Any] | None:
    rates = np.array(candidate.offline.get(batch, []))
    if len(rates) < MIN_TURNS:
        if why := candidate.not_measured.get("offline"):
            gaps["offline"] = why
        return None
    mean, low, high = paired_gain(np.zeros(len(rates)), rates)
    interval = [max(0.0, low), high]
    return {"images_per_s": mean, "interval": interval, "streams": streams(candidate), "batch": batch}


def _server(candidate: Candidate, batch: int, gaps: dict[str, str]) -> dict[str, Any] | None:
    """Requests are single images, so that it belongs to the row of batch 1."""
    if batch != 1:
        return None
    if candidate.server is None and (why := candidate.not_measured.get("server")):
        gaps["server"] = why
    return candidate.server


def _energy(candidate: Candidate, batch: int, gaps: dict[str, str]) -> dict[str, Any] | None:
    """By the counter of what the model ran on; a processor's counts whatever else it did."""
    timing, source = candidate.timings[batch], "nvml" if candidate.on_gpu else "rapl"
    if joules := timing.joules.get(source):
        return {"joules_per_image": joules / (timing.calls * batch), "source": source}
    gaps["energy"] = timing.no_energy.get(source, "the counter of energy did not move")
    return None


def latency_gap(candidate: Candidate, batch: int) -> str:
    """Why there is no latency."""
    if candidate.error:
        return reason(candidate.error)
    return candidate.not_measured.get(f"latency_ms at batch {batch}", INTERRUPTED)
