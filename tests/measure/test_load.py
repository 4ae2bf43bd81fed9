from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from optkit.measure.load import QUERIES, run_offline, run_server, sustained_rate


def test_offline_callers_work_side_by_side():
    met = threading.Barrier(2, timeout=10)

    def caller():
        waited: list[int] = []

        def call() -> None:
            if not waited:  # the first call of each returns only when the other one is there
                waited.append(met.wait())

        return call

    assert run_offline([caller(), caller()], 0.05) > 0


def test_offline_rates_of_all_callers_are_added():
    one, two = (run_offline([lambda: time.sleep(0.02)] * callers, 0.2) for callers in (1, 2))
    assert 10 < one <= 50
    assert one < two <= 100


def test_offline_does_one_call_however_short_the_time():
    assert 0 < run_offline([lambda: time.sleep(0.02)], 0.001) <= 50


def test_server_latency_counts_from_arrival():
    # 50 queries in a tenth of a second, each of 5 ms: the last ones wait for those before them.
    latencies = run_server([lambda: time.sleep(0.005)], rate=500.0, bound_ms=1e6, seed=0, queries=50)
    assert len(latencies) == 50
    assert min(latencies) >= 5
    assert max(latencies) > 100


def test_server_ends_early_when_the_bound_cannot_be_kept():
    calls = []
    slow = lambda: (calls.append(1), time.sleep(0.002))  # noqa: E731
    assert run_server([slow], rate=1e6, bound_ms=1.0, seed=0, queries=1000) is None
    assert len(calls) == 11, "one in a hundred may be late, the next one ends it"


def test_several_callers_share_the_queries():
    used: set[int] = set()
    callers = [lambda number=number: (used.add(number), time.sleep(0.002)) for number in range(3)]
    latencies = run_server(callers, rate=1e5, bound_ms=1e6, seed=0, queries=60)
    assert used == {0, 1, 2}
    assert len(latencies) == 60


def queue(service_ms: float, bound_ms: float):
    """A server of constant service time, computed instead of waited for."""

    def probe(rate: float) -> list[float] | None:
        arrivals = np.random.default_rng(0).exponential(1000 / rate, QUERIES).cumsum()
        free, latencies = 0.0, []
        for arrival in arrivals:
            free = max(free, arrival) + service_ms
            latencies.append(free - arrival)
        return latencies if sum(one > bound_ms for one in latencies) <= QUERIES // 100 else None

    return probe


def test_the_sustained_rate_is_the_highest_that_keeps_the_bound():
    probe = queue(service_ms=5.0, bound_ms=20.0)
    found = sustained_rate(probe, capacity=200.0)
    assert probe(found.queries_per_s) is not None
    assert probe(found.too_fast) is None
    assert found.queries_per_s < found.too_fast <= found.queries_per_s / 0.95 + 1e-9
    assert 60 < found.queries_per_s < 160


def test_a_disturbed_run_is_tried_again():
    disturbed = iter([True])
    probe = queue(service_ms=5.0, bound_ms=20.0)
    calm = sustained_rate(probe, capacity=200.0)
    assert sustained_rate(lambda rate: None if next(disturbed, False) else probe(rate), 200.0) == calm


@pytest.mark.parametrize("bound_ms", [4.0, 5.0])
def test_a_bound_that_no_rate_keeps(bound_ms):
    assert sustained_rate(queue(service_ms=5.0, bound_ms=bound_ms), capacity=200.0) is None
