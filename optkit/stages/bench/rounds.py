"""Interleaved rounds: every model has its turn in each, so that a change of the machine's speed meets all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from optkit.core.errors import OptkitError
from optkit.core.progress import Reporter, Task
from optkit.measure.latency import Stopwatch, typical_ms
from optkit.measure.telemetry import EnergyMeter
from optkit.runtimes.base import check_opens
from optkit.stages.bench.candidate import Candidate, Timing, reason
from optkit.stages.bench.config import Config
from optkit.stages.bench.process import CrashedError

BURST_MS = (
    100.0  # of a model's turn: calls that follow each other are alike, so a longer one tells little more
)
OFFLINE_S = 0.3  # of a model's turn offline: at its end streams wait for the last one
MIN_ROUNDS = 6  # which an interval of their ratios needs
MIN_CALLS = 3  # of a turn, from which its first one is not counted
MAX_SAMPLES = (
    20_000  # of a model and batch size: three times what p99.9 needs; more would only fill the manifest
)
REOPENING = 0.05  # share of the timed seconds that opening models again may take


def open_all(candidates: Sequence[Candidate], threads: int) -> float:
    """A fresh process for each, opened side by side; what fails is kept in `error`. Returns seconds."""
    watch = Stopwatch()
    for one in candidates:
        _attempt(one, check_opens, one.artifact, one.runtime, False)
        if one.error is None:
            one.start()
            _attempt(one, one.post, "open", one.artifact, one.runtime, threads)
    for one in candidates:
        if one.process:
            one.facts = _attempt(one, one.wait) or one.facts
    return watch.seconds()


def _attempt(candidate: Candidate, act: Callable[..., Any], *arguments: object) -> Any:
    """What `act` returns; None, and no process, when the model could not be opened."""
    try:
        return act(*arguments)
    except OptkitError as error:
        candidate.error = error
        candidate.stop(now=True)
        return None


class Rounds:
    """Times candidates, round by round, as `config` says."""

    def __init__(self, config: Config, reporter: Reporter) -> None:
        self._config, self._reporter = config, reporter
        self._energy = EnergyMeter()
        self._order = np.random.default_rng(config.seed)
        self._next_round = 0

    def measure(self, candidates: list[Candidate], opening_s: float) -> None:
        """Single-stream latency of open candidates, in several processes one after the other; some may crash.

        `opening_s` is what opening them took: slow ones are opened once.
        """
        config = self._config
        timed_s = len(config.batch_sizes) * config.seconds * len(candidates)
        processes = min(config.repeats, 1 + int(REOPENING * timed_s / opening_s))
        with self._reporter.track("Timing", round(1000 * timed_s)) as task:
            for number in range(processes):
                if number:
                    open_all(_alive(candidates), config.threads)
                for batch in config.batch_sizes:
                    self._time(_alive(candidates), batch, config.seconds / processes, processes, task)

    def _time(
        self, candidates: list[Candidate], batch: int, seconds: float, processes: int, task: Task
    ) -> None:
        ready = [one for one in candidates if self._is_ready(one, batch, 1000 * seconds)]
        if not ready:
            return
        slowest_ms = max(typical_ms(one.timings[batch].warm_up_ms) for one in ready)
        turn_ms = max(min(BURST_MS, 1000 * seconds), slowest_ms)
        rounds = max(math.ceil(MIN_ROUNDS / processes), round(1000 * seconds / turn_ms))
        most = math.ceil(MAX_SAMPLES / (rounds * processes))
        for _ in range(rounds):
            for index in self._order.permutation(len(ready)):
                if ready[index].process:
                    self._turn(ready[index], batch, turn_ms, most)
                    task.advance(round(turn_ms), note=ready[index].name)
            self._next_round += 1
        for one in ready:
            if one.process:
                with suppress(CrashedError):
                    one.timings[batch].memory = one.call("memory")

    def _is_ready(self, candidate: Candidate, batch: int, budget_ms: float) -> bool:
        """Whether the model takes this batch size, and is warm."""
        gap = f"latency_ms at batch {batch}"
        if why := candidate.refused_batch(batch):
            candidate.not_measured[gap] = why
            return False
        try:
            candidate.call("prepare", batch, self._config.seed)
            times, steady = candidate.call("warm_up", batch, budget_ms)
        except CrashedError:
            return False
        except OptkitError as error:
            candidate.not_measured[gap] = reason(error)
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
        timing.rounds[self._next_round] = times[1:] if len(times) >= MIN_CALLS else times
        timing.spent_ms += sum(times)
        timing.calls += len(times)
        for source, joules in self._energy.read().items():
            timing.joules[source] = timing.joules.get(source, 0.0) + joules - before[source]

    def measure_offline(self, candidates: list[Candidate]) -> None:
        """Images per second with as many requests at once as the runtime wants."""
        config = self._config
        rounds = max(MIN_ROUNDS, round(config.seconds / OFFLINE_S))
        with self._reporter.track("Offline", rounds * len(config.batch_sizes) * len(candidates)) as task:
            for batch in config.batch_sizes:
                ready = [one for one in candidates if batch in one.timings]
                for _ in range(rounds):
                    for index in self._order.permutation(len(ready)):
                        if ready[index].process:
                            self._offline_turn(ready[index], batch)
                            task.advance(note=ready[index].name)

    def _offline_turn(self, candidate: Candidate, batch: int) -> None:
        try:
            found = candidate.call("offline", batch, OFFLINE_S, streams(candidate))
        except CrashedError:
            return
        candidate.offline.setdefault(batch, []).append(found)


def streams(candidate: Candidate) -> int:
    """How many requests the runtime wants to have at once."""
    return int(candidate.facts.get("streams") or 1)


def _alive(candidates: list[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.process]
