from __future__ import annotations

import gc
import itertools
import time

import pytest

from optkit.measure import latency
from optkit.measure.latency import Subject, measure_latency


@pytest.fixture
def fake_clock(monkeypatch):
    """A call takes as many milliseconds as it returns: the tests do not depend on the machine's load."""
    monkeypatch.setattr(latency, "_time_ms", lambda call: float(call()))


def ignore(samples: int) -> None:
    """Nobody watches."""


def test_times_what_was_called():
    (found,) = measure_latency([Subject(lambda: time.sleep(0.003), {"batch": 1})], 0.2, ignore)
    assert found.name == "latency_ms"
    assert found.unit == "ms"
    assert found.conditions["batch"] == 1
    assert found.conditions["warm_up_calls"] >= 10
    assert min(found.samples) >= 3
    assert len(found.samples) > 5


def test_sessions_take_turns(fake_clock):
    calls: list[str] = []
    subjects = [Subject(lambda name=name: calls.append(name) or 50.0, {}) for name in ("a", "b")]
    found = measure_latency(subjects, 1.0, ignore)
    measured = calls[20:]  # after ten calls each to warm up
    turns = "".join(name for name, _ in itertools.groupby(measured))
    assert turns == "ab" * 5  # bursts of 4 × 50 ms until 1000 ms are spent
    assert [len(one.samples) for one in found] == [15, 15]  # the first of each burst is not counted


def test_every_session_gets_its_time(fake_clock):
    subjects = [Subject(lambda: 10.0, {}), Subject(lambda: 40.0, {})]
    measure_latency(subjects, 2.0, ignore)
    assert [subject.spent_ms for subject in subjects] == [2000, 2000]


def test_a_slow_call_fills_a_burst_and_is_counted(fake_clock):
    (found,) = measure_latency([Subject(lambda: 300.0, {})], 0.9, ignore)
    assert found.samples == (300.0,) * 3


def test_progress_tells_of_every_sample(fake_clock):
    counted: list[int] = []
    (found,) = measure_latency([Subject(lambda: 10.0, {})], 1.0, counted.append)
    assert sum(counted) == len(found.samples) > 50


def test_warm_up_goes_on_while_calls_become_faster(fake_clock):
    durations = itertools.chain(range(40, 10, -1), itertools.repeat(10))
    (found,) = measure_latency([Subject(lambda: next(durations), {})], 5.0, ignore)
    assert found.conditions["warm_up_calls"] > 30
    assert found.conditions["warm_up_steady"]
    assert set(found.samples) == {10.0}


def test_warm_up_gives_up_on_what_never_becomes_steady(fake_clock):
    durations = itertools.count(1)
    (found,) = measure_latency([Subject(lambda: 1.2 ** next(durations), {})], 0.05, ignore)
    assert not found.conditions["warm_up_steady"]
    assert found.samples


def test_fast_calls_do_not_flood_the_manifest(fake_clock):
    (found,) = measure_latency([Subject(lambda: 0.001, {})], 10, ignore)
    assert len(found.samples) == latency.MAX_SAMPLES


def test_little_time_is_not_overrun_by_a_long_burst(fake_clock):
    (found,) = measure_latency([Subject(lambda: 1.0, {})], 0.04, ignore)
    assert 40 <= len(found.samples) <= 60


def test_garbage_collection_is_on_again_after_a_failure():
    def fail() -> None:
        raise RuntimeError("broken session")

    with pytest.raises(RuntimeError, match="broken session"):
        measure_latency([Subject(fail, {})], 0.1, ignore)
    assert gc.isenabled()
