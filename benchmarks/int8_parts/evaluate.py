"""How near a file's answers are to FP32's, and how fast it is beside others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from optkit.core.types import Artifact
from optkit.measure.latency import Subject, measure_latency
from optkit.measure.parity import compare_logits
from optkit.measure.statistics import bootstrap, paired_difference, t95, wilson
from optkit.runtimes.base import Session, SessionOptions, any_batch, open_artifact

BATCH = 20
Interval = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """A measured value with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Answers:
    """A file against FP32 on the same photos: SQNR of the logits in dB, share of equal answers, top-1, and
    the points of top-1 that were lost, with the chance of so uneven a split among equally good files."""

    sqnr_db: Figure
    agreement: Figure
    top1: Figure
    drop_points: Figure
    p_value: float


def open_cpu(artifact: Artifact, runtime: str, threads: int) -> Session:
    """The file in `runtime`."""

    def no_module(artifact: Artifact) -> object:
        raise ValueError("only ONNX files are measured")

    return open_artifact(artifact, runtime, SessionOptions(no_module, threads=threads))


def logits_of(session: Session, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (n, classes)."""
    run = any_batch(session)
    return np.concatenate([run(pixels[at : at + BATCH]) for at in range(0, len(pixels), BATCH)])


def compare(
    reference: NDArray[np.float32], logits: NDArray[np.float32], labels: NDArray[np.int64]
) -> Answers:
    """The figures of `logits` (n, classes) beside the `reference`."""
    n = len(labels)
    each = np.array(
        [compare_logits(reference[i : i + 1], logits[i : i + 1]).sqnr_db for i in range(n)], np.float64
    )
    low, high = bootstrap(lambda counts: np.array([counts @ each / n]), n, seed=0)[0].tolist()
    right, right_fp32 = logits.argmax(1) == labels, reference.argmax(1) == labels
    same = int((logits.argmax(1) == reference.argmax(1)).sum())
    difference = paired_difference(right_fp32.tolist(), right.tolist())
    lost = tuple(100 * bound for bound in difference.interval)
    return Answers(
        sqnr_db=Figure(float(each.mean()), (low, high)),
        agreement=Figure(same / n, wilson(same, n)),
        top1=Figure(float(right.mean()), wilson(int(right.sum()), n)),
        drop_points=Figure(100 * difference.drop, (lost[0], lost[1])),
        p_value=difference.p_value,
    )


def latencies(
    sessions: dict[str, Session], size: int, rounds: int, seconds: float
) -> dict[str, NDArray[np.float64]]:
    """Median milliseconds (rounds,) of one image. In a round all sessions run in turns, for `seconds` each."""
    pixels = np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)
    found: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds):
        # What runs after which differs from round to round.
        names = list(sessions)[:: -1 if number % 2 else 1]
        subjects = [Subject(_call(sessions[name], pixels), {}) for name in names]
        for name, measurement in zip(names, measure_latency(subjects, seconds, lambda _: None), strict=True):
            found[name].append(median(measurement.samples))
    return {name: np.array(values) for name, values in found.items()}


def _call(session: Session, pixels: NDArray[np.float32]) -> Callable[[], object]:
    return lambda: session.run(pixels)


def ratio(values: NDArray[np.float64], base: NDArray[np.float64]) -> Figure:
    """Geometric mean over the rounds of `values` / `base`, both (rounds,), two at least."""
    found = mean(np.log(values / base))
    low, high = found.interval
    return Figure(math.exp(found.value), (math.exp(low), math.exp(high)))


def mean(values: NDArray[np.float64]) -> Figure:
    """Mean over two or more rounds, its interval by Student's t."""
    n, middle = len(values), float(values.mean())
    spread = t95(n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Figure(middle, (middle - spread, middle + spread))
