"""Step 2 of compound scaling: the largest φ within a budget of MACs or time (arXiv 1905.11946, page 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from optkit.core.errors import UsageError
from optkit.core.progress import Task
from optkit.core.types import Artifact, Context, Format, Manifest, Measurement
from optkit.measure.latency import Subject, measure_latency
from optkit.models.build import build
from optkit.models.scaling import Coefficients
from optkit.runtimes.base import SessionOptions, open_artifact
from optkit.stages.scale.candidates import Base
from optkit.stages.scale.config import Config

PHI_STEPS = 20  # per unit of φ
MAX_PHI = 10


def largest_phi(fits: Callable[[float], bool]) -> float | None:
    """The largest multiple of 1/20 up to 10 that fits, None when 0 does not; what fits must not get better."""
    if not fits(0.0):
        return None
    low = 0
    while low < MAX_PHI * PHI_STEPS and fits(low / PHI_STEPS + 1):
        low += PHI_STEPS
    high = min(low + PHI_STEPS, MAX_PHI * PHI_STEPS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle / PHI_STEPS) else (low, middle)
    return low / PHI_STEPS


class Budget:
    """Tries values of φ; `trials` are the networks that were tried, `latencies` their measurements."""

    def __init__(self, config: Config, base: Base, coefficients: Coefficients, context: Context) -> None:
        self._config, self._base, self._coefficients = config, base, coefficients
        self._context = context
        self.trials: dict[float, dict[str, Any]] = {}
        self.latencies: dict[float, Measurement] = {}
        self._limits: set[str] = set()

    def spend(self) -> dict[str, Any]:
        """The largest network within the budget; UsageError when the base is too large already."""
        with self._context.reporter.track("step 2: φ within the budget") as task:
            phi = largest_phi(lambda value: self._fits(value, task))
        if phi is None:
            raise self._too_small()
        if phi >= MAX_PHI or self._limits:
            why = next(iter(self._limits), f"φ is at most {MAX_PHI}.")
            self._context.reporter.warn(f"The budget may allow a larger network than φ = {phi:g}. {why}")
        return self.trials[phi]

    def _fits(self, phi: float, task: Task) -> bool:
        config = self._config
        if why := self._coefficients.scaled(self._base.arch, self._base.size, phi).beyond():
            self._limits.add(why)
            return False
        row = self._base.scaled(self._coefficients, phi)
        self.trials[phi] = row
        task.advance(1, f"φ {phi:g}: {row['macs'] / 1e9:.3g} GMACs")
        if config.max_macs is not None and row["macs"] > config.max_macs * 1e9:
            return False
        if config.max_latency_ms is None:
            return True
        found = time_arch(row["arch"], row["size"], config, self._context)
        self.latencies[phi] = found
        row["latency_ms"] = float(np.median(found.samples))
        return bool(row["latency_ms"] <= config.max_latency_ms)

    def _too_small(self) -> UsageError:
        row = self.trials[0.0]
        needs = f"{row['macs'] / 1e9:.3g} GMACs"
        if "latency_ms" in row:
            needs += f" and {row['latency_ms']:.3g} ms"
        return UsageError(
            f"The budget is too small for {self._base.arch!r} itself.",
            why=f"It takes {needs} at {self._base.size} px.",
            hint="Allow more, or start from a smaller --base or --size.",
        )


def time_arch(arch: str, size: int, config: Config, context: Context) -> Measurement:
    """Latency of one image in PyTorch, on this machine; weights are random."""
    manifest = Manifest(stage="scale", key=arch, format=Format.TORCH)
    options = SessionOptions(load_module=lambda _: build(arch, config.num_classes).eval())
    session = open_artifact(Artifact(arch, context.workdir, manifest), "pytorch", options)
    pixels = np.random.default_rng(config.seed).standard_normal((1, 3, size, size), np.float32)
    conditions = {"model": arch, "runtime": "pytorch", "batch": 1, **session.facts}
    subject = Subject(call=lambda: session.run(pixels), conditions=conditions)
    try:
        return measure_latency([subject], config.seconds, lambda _: None)[0]
    finally:
        session.close()
