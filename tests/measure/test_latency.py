from __future__ import annotations

import gc
import time

import pytest

from optkit.measure import latency
from optkit.measure.latency import Subject, measure_latency


def busy(milliseconds: float) -> None:
    end = time.perf_counter() + milliseconds / 1000
    while time.perf_counter() < end:
        pass


def test_times_what_was_called():
    (found,) = measure_latency([Subject(lambda: busy(2), {"batch": 1})], 0.3, lambda n: None)
    assert found.name == "latency_ms"
    assert found.unit == "ms"
    assert found.conditions["batch"] == 1
    assert found.conditions["warm_up_calls"] >= 10
    assert min(found.samples) >= 2
    assert sorted(found.samples)[len(found.samples) // 2] < 4
    assert sum(found.samples) <= 1000  # one burst beyond the budget at most, on a slow machine too


def test_sessions_take_turns(monkeypatch):
    monkeypatch.setattr(latency, "BURST_MS", 5.0)
    calls: list[str] = []
    subjects = [Subject(lambda name=name: (calls.append(name), busy(1)), {}) for name in ("a", "b")]
    measure_latency(subjects, 0.05, lambda n: None)
    measured = "".join(calls[sum(len(subject.warm_up) for subject in subjects) :])
    assert measured.count("ab") > 2  # many changes of turn
    assert measured.count("ba") > 2
    assert measured.count("aa") > 2  # in bursts


def test_the_first_call_of_a_burst_is_not_counted(monkeypatch):
    monkeypatch.setattr(latency, "BURST_MS", 10.0)
    subject = Subject(lambda: busy(1), {})
    counted: list[int] = []
    (found,) = measure_latency([subject], 0.05, counted.append)
    assert sum(counted) == len(found.samples)
    assert subject.spent_ms > sum(found.samples)


def test_a_slow_call_fills_a_burst_and_is_counted(monkeypatch):
    monkeypatch.setattr(latency, "BURST_MS", 1.0)
    subject = Subject(lambda: busy(3), {})
    (found,) = measure_latency([subject], 0.02, lambda n: None)
    assert subject.spent_ms == pytest.approx(sum(found.samples), abs=0.01)


def test_warm_up_goes_on_while_calls_become_faster():
    calls = 0

    def becoming_faster() -> None:
        nonlocal calls
        calls += 1
        busy(max(1.0, 12 - 0.5 * calls))

    subject = Subject(becoming_faster, {})
    (found,) = measure_latency([subject], 0.5, lambda n: None)
    assert found.conditions["warm_up_calls"] > 20
    assert found.conditions["warm_up_steady"]


def test_warm_up_gives_up_on_what_never_becomes_steady():
    calls = 0

    def ever_slower() -> None:
        nonlocal calls
        calls += 1
        busy(0.2 * calls)

    (found,) = measure_latency([Subject(ever_slower, {})], 0.05, lambda n: None)
    assert not found.conditions["warm_up_steady"]
    assert found.samples


def test_fast_calls_do_not_flood_the_manifest():
    (found,) = measure_latency([Subject(lambda: None, {})], 1, lambda n: None)
    assert len(found.samples) <= latency.MAX_SAMPLES


def test_garbage_collection_is_on_again_after_a_failure():
    def fail() -> None:
        raise RuntimeError("broken session")

    with pytest.raises(RuntimeError, match="broken session"):
        measure_latency([Subject(fail, {})], 0.1, lambda n: None)
    assert gc.isenabled()
