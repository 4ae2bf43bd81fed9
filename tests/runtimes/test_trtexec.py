from __future__ import annotations

import numpy as np
import pytest

from optkit.core.errors import UsageError
from optkit.runtimes.tensorrt import trtexec

PIXELS = np.zeros((1, 3, 4, 4), np.float32)


class Session:
    """A session whose parts take equal times; `calls` has what was asked for."""

    def __init__(self, compute_ms: float) -> None:
        self.compute_ms = compute_ms
        self.calls: list[tuple[object, ...]] = []

    def profile(self, pixels, repeats, cuda_graph, transfers=True, spin_wait=False, clock_ns=None):
        self.calls.append((repeats, cuda_graph, transfers, spin_wait, clock_ns))
        names = ("h2d", "compute", "d2h") if transfers else ("compute",)
        return {name: [self.compute_ms] * repeats for name in (*names, "enqueue")}


def clock() -> int:
    return 0


def test_10_copies_and_11_spins_with_a_graph_instead() -> None:
    ten, eleven = trtexec.defaults("trtexec-10"), trtexec.defaults("trtexec-11")
    assert (ten.transfers, ten.cuda_graph, ten.spin_wait) == (True, False, False)
    assert (eleven.transfers, eleven.cuda_graph, eleven.spin_wait) == (False, True, True)
    assert {(one.warm_up_ms, one.seconds, one.min_runs) for one in (ten, eleven)} == {(200.0, 3.0, 10)}
    assert "10.x by default" in ten.text
    assert "200 ms warm-up" in ten.text
    for option in ("--noDataTransfers", "--useCudaGraph", "--useSpinWait"):
        assert option in eleven.text
        assert option not in ten.text


def test_an_unknown_version_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="trtexec-12") as caught:
        trtexec.defaults("trtexec-12")
    assert "trtexec-1" in caught.value.hint


@pytest.mark.parametrize(
    ("preset", "compute_ms", "warm_up", "runs"),
    [
        ("trtexec-11", 2.0, 100, 1500),  # compute alone fills the time
        ("trtexec-10", 2.0, 34, 500),  # and here copies of the same length do, too
        ("trtexec-11", 700.0, 1, 10),  # never fewer than 10 runs
    ],
)
def test_the_time_of_the_preset_is_filled(preset: str, compute_ms: float, warm_up: int, runs: int) -> None:
    session, how = Session(compute_ms), trtexec.defaults(preset)
    times = trtexec.profile_like(session, PIXELS, how, clock)
    assert [call[0] for call in session.calls] == [trtexec.PILOT_RUNS, warm_up, runs]
    assert {call[1:] for call in session.calls} == {(how.cuda_graph, how.transfers, how.spin_wait, clock)}
    assert len(times["compute"]) == runs


def test_latency_is_the_sum_of_the_parts_that_were_run() -> None:
    parts = {"h2d": [1.0, 2.0], "compute": [3.0, 3.0], "d2h": [0.5, 0.5], "enqueue": [9.0, 9.0]}
    assert trtexec.latencies(parts) == [4.5, 5.5]
    assert trtexec.latencies({"compute": [3.0], "enqueue": [9.0]}) == [3.0]


def test_steady_times_of_a_busy_gpu_give_no_warning() -> None:
    assert (
        trtexec.warnings(
            {"h2d": [0.1] * 9, "compute": [1.0, 1.02] * 9, "d2h": [0.1] * 9, "enqueue": [0.79] * 9}
        )
        == []
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"compute": [1.0, 1.06] * 9}, "vary by 2.9%"),
        ({"enqueue": [0.81] * 9}, "wait for the host"),
        ({"h2d": [1.0] * 9}, "Copying in"),
        ({"d2h": [1.0] * 9}, "Copying out"),
    ],
)
def test_the_warnings_of_trtexec(change: dict[str, list[float]], word: str) -> None:
    times = {"h2d": [0.1] * 9, "compute": [1.0] * 9, "d2h": [0.1] * 9, "enqueue": [0.1] * 9} | change
    (found,) = trtexec.warnings(times)
    assert word in found
