"""The process that one model lives in while it is measured: `python -m optkit.stages.bench.worker FD`.

It answers commands that come through an inherited socket, one by one, until that is closed. A crash here ends this
process alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import OptkitError
from optkit.core.types import Artifact
from optkit.measure import latency
from optkit.runtimes.base import Profiled, Session, SessionOptions, any_batch, import_packages, open_artifact

if TYPE_CHECKING:
    import torch

    from optkit.measure.counts import Cost
    from optkit.measure.roofline import Ceilings

Parts = dict[str, list[float]]


def load_module(artifact: Artifact) -> torch.nn.Module:
    """The torch module of an artifact; only runtimes that execute one need torch."""
    from optkit.models import checkpoint

    return checkpoint.load_module(artifact)


def pin(threads: int) -> list[int]:
    """Keep this process on as many of its CPUs as it has threads, of different cores first; returns their numbers."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    places: dict[str, int] = {}
    order = []
    for cpu in sorted(os.sched_getaffinity(0)):
        core = _siblings(cpu)
        places[core] = places.get(core, -1) + 1
        order.append((places[core], cpu))
    os.sched_setaffinity(0, [cpu for _, cpu in sorted(order)[: threads or None]])
    return sorted(os.sched_getaffinity(0))


def _siblings(cpu: int) -> str:
    """The CPUs that share a core with this one, as the system writes it."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


class Worker:
    """One opened model; every public method is a command."""

    def __init__(self) -> None:
        self._artifact: Artifact | None = None
        self._session: Session | None = None
        self._options = SessionOptions(load_module=load_module)
        self._rss_before: int | None = None
        self._pixels: dict[int, NDArray[np.float32]] = {}
        self._typical_ms: dict[int, float] = {}
        self._streams: list[Callable[[NDArray[np.float32]], NDArray[np.float32]]] = []
        self._warm_streams: set[tuple[int, int]] = set()

    def open(self, artifact: Artifact, runtime: str, threads: int) -> tuple[dict[str, Any], float]:
        """Open the model; returns the facts of its session, and the seconds of processor time until now."""
        from optkit.measure.telemetry import process_memory

        cpus = pin(threads)
        import_packages(runtime)  # what they take is not the model's
        self._rss_before = process_memory(os.getpid())["rss_bytes"]
        self._options = SessionOptions(load_module=load_module, threads=threads, needs_answers=False)
        self._artifact, self._session = artifact, open_artifact(artifact, runtime, self._options)
        return {**self._session.facts, "cpus": cpus}, time.process_time()

    @property
    def session(self) -> Session:
        if self._session is None:
            raise ValueError("no model is open")
        return self._session

    def prepare(self, batch: int, seed: int) -> None:
        """Make a batch of random pixels and run it once, so that a refusal does not come while others are timed."""
        size = self._opened.spec.preprocess.size
        shape = (batch, 3, size, size)
        self._pixels[batch] = np.random.default_rng(seed).standard_normal(shape, np.float32)
        self.session.run(self._pixels[batch])

    def warm_up(self, batch: int, budget_ms: float) -> tuple[list[float], bool]:
        """Run until it is steady: (milliseconds of every call, whether it became steady)."""
        times, steady = latency.warm_up(self._call(batch), budget_ms)
        self._typical_ms[batch] = latency.typical_ms(times)
        return times, steady

    def burst(self, batch: int, milliseconds: float, most: int) -> list[float]:
        """Milliseconds of calls in a row, `most` of them at most."""
        count = max(1, round(milliseconds / self._typical_ms[batch]))
        times = latency.burst(self._call(batch), min(count, most))
        # The next turn is as long as it should be when the speed has changed.
        self._typical_ms[batch] = latency.typical_ms(times)
        return times

    def offline(self, batch: int, seconds: float, streams: int) -> float:
        """Images per second, working on `streams` batches at once."""
        from optkit.measure.load import run_offline

        return batch * run_offline(self._callers(batch, streams), seconds)

    def server(self, rate: float, bound_ms: float, streams: int, seed: int) -> list[float] | None:
        """Single images that arrive at random, see `run_server`."""
        from optkit.measure.load import run_server

        return run_server(self._callers(1, streams), rate, bound_ms, seed)

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of any number of images."""
        return any_batch(self.session)(pixels)

    def profile(self, batch: int, runs: int, cuda_graph: bool) -> Parts:
        """Milliseconds of the parts of a run, by the device's own clock; empty where it has none."""
        if not isinstance(self.session, Profiled):
            return {}
        return self.session.profile(self._pixels[batch], runs, cuda_graph)

    def profile_like(self, batch: int, preset: str) -> Parts:
        """The same, timed as another tool does."""
        from optkit.runtimes.tensorrt.trtexec import defaults, profile_like

        if not isinstance(self.session, Profiled):
            return {}
        return profile_like(self.session, self._pixels[batch], defaults(preset), latency.clock_ns)

    def layers(self, runtime: str, batch: int, limits: Ceilings | None, runs: int) -> dict[str, Any]:
        """Time, work and limit of every layer, see `layer_costs`."""
        from optkit.stages.bench.layers import layer_costs

        return layer_costs(self._opened, runtime, self._options, batch, limits, runs)

    def ceilings(self, precisions: tuple[str, ...], threads: int, device: str, seconds: float) -> Ceilings:
        """What the machine can do at most; needs no model."""
        from optkit.stages.bench.layers import ceilings

        pin(threads)
        return ceilings(precisions, threads, device, seconds)

    def cost(self) -> Cost | None:
        """MACs and the like of one image."""
        from optkit.stages.bench.counted import cost_of

        return cost_of(self._opened)

    def memory(self) -> dict[str, int | None]:
        """What this process holds and held, and held before the model was opened."""
        from optkit.measure.telemetry import gpu_memory, process_memory

        found = process_memory(os.getpid())
        on_gpu = str(self.session.facts.get("device", "cpu")) not in ("cpu", "none")
        return {
            "peak_rss_bytes": found["peak_rss_bytes"],
            "rss_before_bytes": self._rss_before,
            "gpu_bytes": gpu_memory(os.getpid())[0] if on_gpu else None,
        }

    @property
    def _opened(self) -> Artifact:
        if self._artifact is None:
            raise ValueError("no model is open")
        return self._artifact

    def _call(self, batch: int) -> Callable[[], object]:
        session, pixels = self.session, self._pixels[batch]
        return lambda: session.run(pixels)

    def _callers(self, batch: int, streams: int) -> list[Callable[[], object]]:
        """Independent callers, warm: what a first call sets up is not timed."""
        pixels = self._pixels[batch]
        while len(self._streams) < streams:
            self._streams.append(self.session.stream())
        callers = [lambda run=run: run(pixels) for run in self._streams[:streams]]
        if (batch, streams) not in self._warm_streams:
            for call in callers:
                call()
            self._warm_streams.add((batch, streams))
        return callers


COMMANDS = frozenset(name for name in vars(Worker) if not name.startswith("_") and name != "session")


def serve(connection: Connection) -> None:
    """Answer ("ok", value) or ("error", OptkitError) to every (command, arguments), until the other end is gone."""
    worker = Worker()
    with latency.no_garbage_collection():
        while True:
            try:
                command, arguments = connection.recv()
            except EOFError:
                return
            if command not in COMMANDS:
                raise ValueError(f"unknown command {command!r}")
            try:
                answer = ("ok", getattr(worker, command)(*arguments))
            except OptkitError as error:
                answer = ("error", error)
            try:
                connection.send(answer)
            except (BrokenPipeError, ConnectionResetError):  # nobody wants to know any more
                return


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
