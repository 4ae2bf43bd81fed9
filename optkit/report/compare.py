"""What may be said about two measurements: intervals of accuracy differences, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any

from optkit.report.schema import Delta, Interval, Number, Row, Step

Answers = dict[
    tuple[str, Any, Any], tuple[float, ...]
]  # by bench step, key and runtime: 1 for a right answer
Z95 = NormalDist().inv_cdf(0.975)


def unpaired_interval(top1: float, n: int, reference: float, reference_n: int) -> Interval:
    """95 % interval of `top1 - reference`, two shares of `n` and `reference_n` images.

    Normal approximation with one success and one failure added to each sample (Agresti and Caffo 2000,
    The American Statistician 54), so that two perfect scores still have a width. On the same images it is
    wider than a paired interval would be.
    """
    this = (top1 * n + 1) / (n + 2)
    other = (reference * reference_n + 1) / (reference_n + 2)
    error = sqrt(this * (1 - this) / (n + 2) + other * (1 - other) / (reference_n + 2))
    return _around(this - other, error)


def paired_interval(only_reference: int, only_this: int, n: int) -> Interval:
    """95 % interval of the difference of two shares on the same `n` images.

    `only_reference` and `only_this` count the images that one model alone got right. Normal approximation
    with one image added to each (Bonett and Price 2012, Journal of Educational and Behavioral Statistics 37).
    """
    lost, won, total = (only_reference + 1) / (n + 2), (only_this + 1) / (n + 2), n + 2
    return _around(won - lost, sqrt((won + lost - (won - lost) ** 2) / total))


def _around(difference: float, error: float) -> Interval:
    return max(-1.0, difference - Z95 * error), min(1.0, difference + Z95 * error)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the `(latency, accuracy)` points that no other point beats in both, fastest first."""

    def beaten(latency: float, accuracy: float) -> bool:
        return any(
            other[0] <= latency and other[1] >= accuracy and other != (latency, accuracy) for other in points
        )

    front = [index for index, point in enumerate(points) if not beaten(*point)]
    return sorted(front, key=lambda index: points[index])


def with_deltas(rows: list[Row], baseline: str | None, steps: list[Step]) -> list[Row]:
    """Every row compared with the model called `baseline`, and with the nearest model it was made from."""
    answers = _answers(steps)
    return [_compared(row, rows, baseline, steps, answers) for row in rows]


def _answers(steps: list[Step]) -> Answers:
    """Which images each row got right, where its bench step kept that."""
    return {
        (
            step.name,
            measurement.conditions.get("key"),
            measurement.conditions.get("runtime"),
        ): measurement.samples
        for step in steps
        for measurement in step.manifest.measurements
        if measurement.name == "top1" and measurement.samples
    }


def _compared(row: Row, rows: list[Row], baseline: str | None, steps: list[Step], answers: Answers) -> Row:
    """`row` against the baseline, and against its nearest source that ran in the same runtime."""
    if not row.computes:
        return row
    rows = [other for other in rows if other.computes]
    against_baseline = _reference([other for other in rows if other.name == baseline], row)
    against_source = None
    for key in _ancestors(row.key, steps):
        same = [other for other in rows if other.key == key and other.runtime == row.runtime]
        if found := _reference(same, row):
            against_source = _delta(row, found, answers)
            break
    return row.model_copy(
        update={
            "against_baseline": _delta(row, against_baseline, answers) if against_baseline else None,
            "against_source": against_source,
        }
    )


def _reference(candidates: list[Row], row: Row) -> Row | None:
    """The candidate that compares best: the same batch, then the same runtime, then one that was timed.

    A candidate in another runtime is compared with the first candidate.
    """
    others = [other for other in candidates if other.batch == row.batch]
    if row in others:
        return others[0] if others[0] != row else None
    return min(others, key=lambda other: (other.runtime != row.runtime, other.p50 is None), default=None)


def _ancestors(key: str, steps: list[Step]) -> list[str]:
    """Keys of what `key` was made from, nearest first."""
    sources = {
        step.manifest.key: [key for role in step.manifest.inputs.values() for key in role] for step in steps
    }
    found: dict[str, None] = {}
    layer = sources.get(key, [])
    while layer:
        found |= dict.fromkeys(layer)
        layer = [above for below in layer for above in sources.get(below, []) if above not in found]
    return list(found)


def _delta(row: Row, reference: Row, answers: Answers) -> Delta:
    interval, images, paired = _difference(row, reference, answers)
    known = row.top1 is not None and reference.top1 is not None
    return Delta(
        reference=reference.name,
        reference_format=reference.format,
        reference_precision=reference.precision,
        reference_runtime=reference.runtime,
        runtime=row.runtime,
        speedup=_ratio(reference.p50, row.p50),
        top1_difference=(row.top1 or 0) - (reference.top1 or 0) if known else None,
        top1_interval=interval,
        n=images,
        paired=paired,
        size_ratio=_ratio(row.size_bytes, reference.size_bytes),
        macs_ratio=_ratio(row.macs, reference.macs),
    )


def _difference(row: Row, reference: Row, answers: Answers) -> tuple[Interval | None, int | None, bool]:
    """Interval of the top-1 difference, its number of images, and whether these are the same ones."""
    if row.top1 is None or reference.top1 is None or not row.n or not reference.n:
        return None, None, False
    this = answers.get((row.bench, row.key, row.runtime), ())
    other = answers.get((reference.bench, reference.key, reference.runtime), ())
    # A bench step shows the same images to every model.
    if row.bench == reference.bench and len(this) == len(other) == row.n:
        pairs = list(zip(other, this, strict=True))
        interval = paired_interval(pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0)), row.n)
        return interval, row.n, True
    interval = unpaired_interval(row.top1, row.n, reference.top1, reference.n)
    return interval, min(row.n, reference.n), False


def _ratio(value: Number | None, reference: Number | None) -> float | None:
    return value / reference if value and reference else None


def with_front(rows: list[Row]) -> list[Row]:
    """Mark the front of (p50 latency, top-1) of each batch size."""
    marked = list(rows)
    for batch in {row.batch for row in rows}:
        points = {
            index: (row.p50, row.top1)
            for index, row in enumerate(rows)
            if row.batch == batch and row.computes and row.p50 is not None and row.top1 is not None
        }
        indices = list(points)
        for place in pareto_front(list(points.values())):
            index = indices[place]
            marked[index] = rows[index].model_copy(update={"on_front": True})
    return marked
