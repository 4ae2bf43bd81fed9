"""Measurements as `optkit bench` leaves them, with made-up figures, committed through the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optkit.core.store import Store
from optkit.core.types import Artifact, Format, Manifest, Measurement

N = 2000
ROUNDS = 40
CALLS = 20


class Bench:
    """Collects rows and samples; `commit` makes the artifact."""

    def __init__(self, root: Path) -> None:
        self._store = Store(root / "store")
        self.rows: list[dict[str, Any]] = []
        self.measurements: list[Measurement] = []
        self.details: dict[str, Any] = {}
        self.seconds = 5.0
        self.config: dict[str, Any] = {}

    def answers(self, name: str, right: np.ndarray, runtime: str = "onnxruntime", **fields: Any) -> None:
        """Which images a model got right."""
        conditions = {
            "model": name,
            "key": f"key-{name}",
            "runtime": runtime,
            "indices": list(range(len(right))),
        }
        samples = tuple(float(one) for one in right)
        self.measurements.append(
            Measurement(name="top1", unit="1", samples=samples, conditions=conditions | fields)
        )

    def times(
        self,
        name: str,
        ms: np.ndarray,
        runtime: str = "onnxruntime",
        batch: int = 1,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Calls (rounds, calls a round); `numbers` says which round each is."""
        conditions = {"model": name, "key": f"key-{name}", "runtime": runtime, "batch": batch}
        conditions["rounds"] = [ms.shape[1]] * ms.shape[0]
        if numbers is not None:
            conditions["round_numbers"] = list(numbers)
        samples = tuple(ms.ravel().tolist())
        self.measurements.append(
            Measurement(name="latency_ms", unit="ms", samples=samples, conditions=conditions)
        )

    def row(self, name: str, runtime: str = "onnxruntime", batch: int = 1, **fields: Any) -> None:
        """A row of the table."""
        row = {"name": name, "key": f"key-{name}", "runtime": runtime, "batch": batch, "size_bytes": 1000}
        self.rows.append(row | fields)

    def commit(self, stage: str = "bench") -> Artifact:
        key = "0123456789abcdef"
        manifest = Manifest(
            stage=stage,
            key=key,
            format=Format.RESULT,
            config={"seed": 0, "seconds": self.seconds, **self.config},
            measurements=tuple(self.measurements),
            details={"rows": self.rows, **self.details},
        )
        with self._store.workdir(key) as workdir:
            return self._store.commit(workdir, manifest)


def right(lost: int = 0, won: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Answers of a baseline and of a candidate that lost and won some images."""
    before = np.ones(n, bool)
    before[:won] = False
    after = np.ones(n, bool)
    after[n - lost :] = False
    return before, after


def timed(ms: float, noise: float = 0.02, seed: int = 0, rounds: int = ROUNDS) -> np.ndarray:
    """Calls of a model, with the noise of a round and of each call."""
    rng = np.random.default_rng(seed)
    levels = ms * np.exp(noise * rng.standard_normal((rounds, 1)))
    return np.asarray(levels * np.exp(0.02 * rng.standard_normal((rounds, CALLS))))


def pair(root: Path, lost: int = 4, won: int = 2, ms: float = 10.0, n: int = N) -> Bench:
    """A baseline of 20 ms and a candidate."""
    bench = Bench(root)
    before, after = right(lost, won, n)
    bench.row("fp32")
    first = {"name": "fp32", "runtime": "onnxruntime"}
    bench.row("int8", agreement=1 - (lost + won) / n, agreement_with=first, n=n, size_bytes=250)
    bench.answers("fp32", before)
    bench.answers("int8", after)
    bench.times("fp32", timed(20.0, seed=1))
    bench.times("int8", timed(ms, seed=2))
    return bench
