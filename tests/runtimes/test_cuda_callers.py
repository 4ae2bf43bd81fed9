"""Callers on a CUDA device, with a device of the test's own: its clock goes on when something is enqueued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from optkit.runtimes import _cuda
from optkit.runtimes._cuda import Bound, Caller

COSTS = {"h2d": 2.0, "compute": 5.0, "d2h": 1.0}


class Device:
    """What `torch.cuda` offers, without a GPU; `log` has what happened in order."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.log: list[str] = []
        self.current: Device.Stream | None = None
        self.bound: list[tuple[tuple[int, ...], bool]] = []
        device = self

        class Event:
            def __init__(self, enable_timing: bool, blocking: bool) -> None:
                assert enable_timing
                self.blocking, self.at = blocking, -1.0

            def record(self) -> None:
                assert device.current, "an event outside of the caller's stream"
                self.at = device.now_ms

            def synchronize(self) -> None:
                device.log.append("sleep" if self.blocking else "spin")

            def elapsed_time(self, end: Event) -> float:
                return end.at - self.at

        self.Event = Event

    class Stream:
        def synchronize(self) -> None:
            """Nothing is under way."""

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.current = stream
        yield
        self.current = None

    def bind(self, shape: tuple[int, ...], stream: Stream, cuda_graph: bool) -> Bound:
        """A model whose logits are the means of the channels."""
        assert self.current is stream
        self.bound.append((shape, cuda_graph))
        images, logits = torch.zeros(shape), torch.zeros(shape[0], 3)
        device = self

        class Timed(Bound):
            def copy_in(self) -> None:
                assert device.current is stream
                super().copy_in()
                device.spend("h2d")

            def copy_out(self) -> None:
                super().copy_out()
                device.spend("d2h")

        bound = Timed(images.clone(), images, logits, logits.clone(), lambda: None)

        def launch() -> None:
            bound.device_output.copy_(bound.device_input.mean((2, 3)))
            self.spend("compute")

        bound.launch = launch
        return bound

    def spend(self, part: str) -> None:
        self.now_ms += COSTS[part]
        self.log.append(part)


def images(batch: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((batch, 3, 4, 4), np.float32)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.mark.parametrize("batch", [1, 2, 4, 11])
def test_batches_are_cut_and_filled_up_as_the_model_takes_them(device: Device, batch: int) -> None:
    caller = Caller(device, device.bind, cuda_graph=False, smallest=2, largest=4)
    logits = caller.run(images(batch))
    np.testing.assert_allclose(logits, images(batch).mean((2, 3)), atol=1e-6)
    assert all(2 <= shape[0] <= 4 for shape, _ in device.bound)


def test_memory_is_kept_for_the_last_shape(device: Device) -> None:
    caller = Caller(device, device.bind, cuda_graph=True)
    for batch in (2, 2, 3, 2):
        caller.run(images(batch))
    assert [shape[0] for shape, _ in device.bound] == [2, 3, 2]
    assert all(cuda_graph for _, cuda_graph in device.bound)


def test_answers_stay_when_the_next_batch_runs(device: Device) -> None:
    caller = Caller(device, device.bind, cuda_graph=False)
    first = caller.run(images(2))
    kept = first.copy()
    caller.run(images(2) + 1)
    np.testing.assert_array_equal(first, kept)


def test_a_closed_caller_says_so(device: Device) -> None:
    caller = Caller(device, device.bind, cuda_graph=False)
    caller.close()
    with pytest.raises(ValueError, match="closed"):
        caller.run(images(1))


def test_parts_of_a_run_are_timed_apart(device: Device) -> None:
    ticks = count(step=500_000)
    times = Caller(device, device.bind, False).profile(images(1), 7, False, clock_ns=lambda: next(ticks))
    assert times == {**{name: [ms] * 7 for name, ms in COSTS.items()}, "enqueue": [0.5] * 7}
    assert device.log.count("compute") == _cuda.WARM_UP_RUNS + 7


def test_without_transfers_the_pixels_are_copied_once(device: Device) -> None:
    times = Caller(device, device.bind, False).profile(images(1), 7, False, transfers=False)
    assert times == {"compute": [5.0] * 7}
    assert device.log.count("h2d") == 1
    assert "d2h" not in device.log


@pytest.mark.parametrize(("spin_wait", "how"), [(True, "spin"), (False, "sleep")])
def test_the_host_waits_as_it_is_told(device: Device, spin_wait: bool, how: str) -> None:
    Caller(device, device.bind, False).profile(images(1), 3, False, spin_wait=spin_wait)
    assert {entry for entry in device.log if entry not in COSTS} == {how}


def test_one_run_is_enqueued_while_another_is_under_way(device: Device) -> None:
    Caller(device, device.bind, False).profile(images(1), 3, False, transfers=False)
    log = ["wait" if entry == "sleep" else entry for entry in device.log if entry != "h2d"]
    assert log[:3] == ["compute", "compute", "wait"]
    assert log[-3:] == ["compute", "wait", "wait"]


def test_a_profile_records_a_graph_if_it_is_to(device: Device) -> None:
    caller = Caller(device, device.bind, cuda_graph=False)
    caller.profile(images(2), 1, cuda_graph=True)
    caller.run(images(2))
    assert [cuda_graph for _, cuda_graph in device.bound] == [True, False]
