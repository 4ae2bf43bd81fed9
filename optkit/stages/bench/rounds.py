"""Interleaved rounds: every model has its turn in each, so that a change of the machine's speed meets all of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from optkit.core.errors import OptkitError
from optkit.core.progress import Reporter, Task
from optkit.measure.latency import Stopwatch, typical_ms
from optkit.measure.telemetry import EnergyMeter
from optkit.runtimes.base import check_opens
from optkit.stages.bench.candidate import Candidate, Timing, alive, reason
from optkit.stages.bench.config import Config
from optkit.stages.bench.process import CrashedError

BURST_MS = (
    100.0  # of a model's turn: calls that follow each other are alike, so a longer one tells little more
)
OFFLINE_S, OFFLINE_CALLS = 0.3, 10  # of a model's turn offline, at least: at its end some streams work alone
MIN_ROUNDS = 6  # which an interval of their ratios needs
MIN_CALLS = 3  # of a turn, from which its first one is not counted
MAX_SAMPLES = (
    20_000  # of a model and batch size: three times what p99.9 needs; more would only fill the manifest
)
REOPENING = 0.05  # share of the timed seconds that opening models again may take


def start_all(candidates: Sequence[Candidate], threads: int) -> None:
    """A fresh process for each, which begins to open its model; `wait_all` waits for them."""
    for one in candidates:
        _attempt(one, check_opens, one.artifact, one.runtime, False)
        if one.error is None:
            _attempt(one, one.start)
        if one.process:
            _attempt(one, one.post, "open", one.artifact, one.runtime, threads)


def wait_all(candidates: Sequence[Candidate]) -> None:
    """Until every started process has opened its model; what fails is kept in `error`."""
    for one in candidates:
        if one.process:
            one.facts, one.opening_s = _attempt(one, one.wait) or (one.facts, one.opening_s)


def _attempt(candidate: Candidate, act: Callable[..., Any], *arguments: object) -> Any:
    """What `act` returns; None, and no process, when the model could not be opened."""
    try:
        return act(*arguments)
    except OptkitError as error:
        candidate.error = error
        candidate.stop()
        return None


class Rounds:
    """Times candidates, round by round, as `config` says."""

    def __init__(self, config: Config, reporter: Reporter) -> None:
        self._config, self._reporter = config, reporter
        self._energy = EnergyMeter()
        self._order = random.Random(config.seed)
        self._next_round = 0

    def measure(self, candidates: list[Candidate]) -> None:
        """Single-stream latency of open candidates, in several processes one after the other; some may crash.

        Where opening them and the first calls are slow, they are opened once.
        """
        config, watch = self._config, Stopwatch()
        batches = sorted(config.batch_sizes)  # the peak of memory at one holds all smaller ones
        timed_s = len(batches) * config.seconds * len(candidates)
        self._prepare(candidates, batches)
        opening_s = max(one.opening_s for one in candidates) + watch.seconds()
        repeats = 1 + int(REOPENING * timed_s / opening_s)
        processes = min(config.repeats, repeats)
        with self._reporter.track("Timing", round(1000 * timed_s)) as task:
            for number in range(processes):
                if number:
                    again = alive(candidates)
                    start_all(again, config.threads)
                    wait_all(again)
                    self._prepare(alive(candidates), batches)
                for batch in batches:
                    self._time(alive(candidates), batch, config.seconds / processes, processes, task)

    def _prepare(self, candidates: list[Candidate], batches: list[int]) -> None:
        """Which batch sizes every candidate takes; a first call may compile."""
        for one in candidates:
            one.prepared.clear()
            for batch in batches:
                gap = f"latency_ms at batch {batch}"
                if why := one.refused_batch(batch):
                    one.not_measured[gap] = why
                    continue
                try:
                    one.call("prepare", batch, self._config.seed)
                    one.prepared.add(batch)
                except CrashedError:
                    break
                except OptkitError as error:
                    one.not_measured[gap] = reason(error)

    def _time(
        self, candidates: list[Candidate], batch: int, seconds: float, processes: int, task: Task
    ) -> None:
        ready = [
            one for one in candidates if batch in one.prepared and self._is_warm(one, batch, 1000 * seconds)
        ]
        if not ready:
            return
        slowest_ms = max(typical_ms(one.timings[batch].warm_up_ms) for one in ready)
        turn_ms = max(min(BURST_MS, 1000 * seconds), slowest_ms)
        rounds = max(math.ceil(MIN_ROUNDS / processes), round(1000 * seconds / turn_ms))
        most = math.ceil(MAX_SAMPLES / (rounds * processes))
        for _ in range(rounds):
            for one in self._shuffled(ready):
                if one.process:
                    self._turn(one, batch, turn_ms, most)
                    task.advance(round(turn_ms), note=one.name)
            self._next_round += 1
        for one in ready:
            if one.process:
                with suppress(CrashedError):
                    one.timings[batch].memory = one.call("memory")

    def _shuffled(self, candidates: list[Candidate]) -> list[Candidate]:
        return self._order.sample(candidates, len(candidates))

    def _is_warm(self, candidate: Candidate, batch: int, budget_ms: float) -> bool:
        """Runs it until it is steady; False when its process died."""
        try:
            times, steady = candidate.call("warm_up", batch, budget_ms)
        except CrashedError:
            return False
        timing = candidate.timings.setdefault(batch, Timing(no_energy=self._energy.unavailable))
        timing.warm_up_ms, timing.steady = times, timing.steady and steady
        timing.spent_ms += sum(times)
        return True

    def _turn(self, candidate: Candidate, batch: int, milliseconds: float, most: int) -> None:
        before = self._energy.read()
        try:
            times = candidate.call("burst", batch, milliseconds, most)
        except CrashedError:
            return
        timing = candidate.timings[batch]
        # The first call finds the caches of another process. It counts only where few calls fill a turn.
        is_short = milliseconds < MIN_CALLS * typical_ms(timing.warm_up_ms)
        timing.rounds[self._next_round] = times if is_short or len(times) == 1 else times[1:]
        timing.spent_ms += sum(times)
        timing.calls += len(times)
        for source, joules in self._energy.read().items():
            timing.joules[source] = timing.joules.get(source, 0.0) + joules - before[source]

    def measure_offline(self, candidates: list[Candidate]) -> None:
        """Images per second with as many requests at once as the runtime wants."""
        batches = sorted(self._config.batch_sizes)
        with self._reporter.track("Offline", round(1000 * self._config.seconds) * len(batches)) as task:
            for batch in batches:
                ready = [one for one in candidates if batch in one.prepared and batch in one.timings]
                if ready:
                    self._offline(ready, batch, task)

    def _offline(self, ready: list[Candidate], batch: int, task: Task) -> None:
        slowest_ms = max(typical_ms(one.timings[batch].warm_up_ms) for one in ready)
        turn_s = max(OFFLINE_S, OFFLINE_CALLS * slowest_ms / 1000)
        rounds = max(MIN_ROUNDS, round(self._config.seconds / turn_s))
        for _ in range(rounds):
            for one in self._shuffled(ready):
                if one.process:
                    with suppress(CrashedError):
                        found = one.call("offline", batch, turn_s, streams(one))
                        one.offline.setdefault(batch, []).append(found)
            task.advance(round(1000 * turn_s))


def streams(candidate: Candidate) -> int:
    """How many requests the runtime wants to have at once."""
    return int(candidate.facts.get("streams") or 1)
