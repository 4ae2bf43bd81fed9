"""Latency of several sessions, taken in turns so that a change of the machine's speed meets all of them.

This module alone reads the clock for a result.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from optkit.core.types import Measurement

BURST_MS = 200.0  # how long a session runs, at most, before it is the next one's turn
WINDOW = 5  # calls compared with the calls before them
STEADY = 0.05  # two windows whose medians differ by less than this share
MAX_WARM_UP = 300
MAX_SAMPLES = 2000  # three times what p99 needs; more would only fill the manifest


class Stopwatch:
    """How long work took that is done once."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._started


@dataclass
class Subject:
    """One thing to time: `call` runs one batch from host memory to host memory."""

    call: Callable[[], object]
    conditions: dict[str, Any]
    samples_ms: list[float] = field(default_factory=list)
    warm_up: list[float] = field(default_factory=list)
    spent_ms: float = 0.0

    def done(self, budget_ms: float) -> bool:
        return bool(self.samples_ms) and (self.spent_ms >= budget_ms or len(self.samples_ms) >= MAX_SAMPLES)


def measure_latency(
    subjects: list[Subject], seconds: float, progress: Callable[[int], None]
) -> list[Measurement]:
    """Warm every subject up, then time them in turns for `seconds` each; raw samples in milliseconds.

    A turn is a burst of calls. Its first call finds the caches and threads of another session and is not
    counted, unless one call fills the burst. `progress` gets the number of new samples after every turn.
    """
    with no_garbage_collection():
        steady = [_warm_up(subject, seconds * 1000) for subject in subjects]
        waiting = subjects
        while waiting := [subject for subject in waiting if not subject.done(seconds * 1000)]:
            for subject in waiting:
                # Where little time is asked for, one burst is to fill it, and not much more.
                progress(_burst(subject, min(BURST_MS, 1.5 * seconds * 1000)))
    return [_measurement(subject, calm) for subject, calm in zip(subjects, steady, strict=True)]


clock_ns = time.perf_counter_ns


def _time_ms(call: Callable[[], object]) -> float:
    started = clock_ns()
    call()
    return (clock_ns() - started) / 1e6


def _warm_up(subject: Subject, budget_ms: float) -> bool:
    subject.warm_up, steady = warm_up(subject.call, budget_ms, subject.warm_up)
    return steady


def warm_up(
    call: Callable[[], object], budget_ms: float, calls: Sequence[float] = ()
) -> tuple[list[float], bool]:
    """Call until two windows in a row agree; (milliseconds of every call, False when calls or time ran out before).

    `calls` are those that were made already.
    """
    times = list(calls)
    while len(times) < MAX_WARM_UP:
        times.append(_time_ms(call))
        if len(times) >= 2 * WINDOW:
            before = statistics.median(times[-2 * WINDOW : -WINDOW])
            now = statistics.median(times[-WINDOW:])
            if abs(now - before) <= STEADY * before:
                return times, True
            if sum(times) > budget_ms:
                return times, False
    return times, False


def typical_ms(times: Sequence[float]) -> float:
    """Milliseconds of a call, by the last of them; never 0."""
    return max(statistics.median(times[-WINDOW:]), 1e-3)


def burst(call: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of every one of `count` calls in a row."""
    return [_time_ms(call) for _ in range(count)]


def _burst(subject: Subject, milliseconds: float) -> int:
    count = max(1, round(milliseconds / typical_ms(subject.warm_up)))
    count = min(count, MAX_SAMPLES - len(subject.samples_ms) + 1)
    times = burst(subject.call, count)
    subject.spent_ms += sum(times)
    counted = times[1:] if count > 1 else times
    subject.samples_ms += counted
    return len(counted)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Python's collector would add its pauses to random calls."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _measurement(subject: Subject, steady: bool) -> Measurement:
    return Measurement(
        name="latency_ms",
        unit="ms",
        samples=tuple(round(sample, 4) for sample in subject.samples_ms),
        conditions={**subject.conditions, "warm_up_calls": len(subject.warm_up), "warm_up_steady": steady},
    )
