"""What may be said about two measurements: intervals of accuracy differences, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

from optkit.core.score import score_interval
from optkit.core.types import Measurement
from optkit.report.base import Interval, Number
from optkit.report.bench_schema import Bench, Comparison
from optkit.report.conditions import Conditions, conditions
from optkit.report.schema import Delta, Row, Step

# Which images a model got right (1.0), by bench step, key and runtime.
Answers = dict[tuple[str, Any, Any], Measurement]
PairedAnswers = tuple[Sequence[float], Sequence[float]]  # of the reference and of the row
Comparisons = dict[
    tuple[str, str, str, int | None], list[Comparison]
]  # by bench step, name, runtime and batch
Z95 = NormalDist().inv_cdf(0.975)
NOT_SIDE_BY_SIDE = "not timed side by side"


@dataclass(frozen=True)
class Evidence:
    """What bench steps say about pairs of rows."""

    answers: Answers
    comparisons: Comparisons
    steps: dict[str, Step]

    def conditions(self, row: Row) -> Conditions:
        return conditions(row, self.steps)

    def paired_answers(self, row: Row, reference: Row) -> PairedAnswers | None:
        """Those of the reference and of the row to the same images: a bench step shows every model the same."""
        before, after = answers_by(reference, self.answers), answers_by(row, self.answers)
        if not before or not after or row.bench != reference.bench:
            return None
        fits = len(before.samples) == len(after.samples) == row.n
        return (before.samples, after.samples) if fits else None

    def comparison(self, row: Row, reference: Row) -> Comparison | None:
        """How the two were timed side by side."""
        same = self.comparisons.get((row.bench, row.name, row.runtime, row.batch), ())
        wanted = (reference.name, reference.runtime)
        return next((one for one in same if (one.reference.name, one.reference.runtime) == wanted), None)


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
    """95 % interval of the difference of two shares on the same `n` images, as bench and gate have it.

    `only_reference` and `only_this` count the images that one model alone got right.
    """
    low, high = score_interval(only_reference, only_this, n, Z95)
    return -high, -low


def mcnemar(lost: int, won: int) -> float:
    """The chance of a split at least this uneven if both models were equally good (exact, two-sided)."""
    changed = lost + won
    term = tail = 1
    for place in range(min(lost, won)):
        term = term * (changed - place) // (place + 1)
        tail += term
    chance: float = 2 * tail / 2**changed
    return min(1.0, chance)


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


def with_deltas(rows: list[Row], baseline: str | None, steps: list[Step], benches: list[Bench]) -> list[Row]:
    """Every row compared with the model called `baseline`, and with the nearest model it was made from."""
    evidence = Evidence(answers_of(steps), _comparisons(benches), {step.name: step for step in steps})
    return [_compared(row, rows, baseline, steps, evidence) for row in rows]


def answers_by(row: Row, answers: Answers) -> Measurement | None:
    """Those of one row."""
    return answers.get((row.bench, row.key, row.runtime))


def answers_of(steps: Iterable[Step]) -> Answers:
    """Which images each row got right, where its bench step kept that."""
    return {
        (step.name, found.conditions.get("key"), found.conditions.get("runtime")): found
        for step in steps
        for found in step.manifest.measurements
        if found.name == "top1" and found.samples
    }


def _comparisons(benches: list[Bench]) -> Comparisons:
    found: Comparisons = {}
    for bench in benches:
        for one in bench.comparisons:
            found.setdefault((bench.step, one.name, one.runtime, one.batch), []).append(one)
    return found


def _compared(row: Row, rows: list[Row], baseline: str | None, steps: list[Step], evidence: Evidence) -> Row:
    """`row` against the baseline, and against its nearest source that ran in the same runtime."""
    if not row.computes:
        return row
    rows = [other for other in rows if other.computes]
    against_baseline = _reference([other for other in rows if other.name == baseline], row, evidence)
    against_source = None
    for key in _ancestors(row.key, steps):
        same = [other for other in rows if other.key == key and other.runtime == row.runtime]
        if found := _reference(same, row, evidence):
            against_source = _delta(row, found, evidence)
            break
    return row.model_copy(
        update={
            "against_baseline": _delta(row, against_baseline, evidence) if against_baseline else None,
            "against_source": against_source,
        }
    )


def _reference(candidates: list[Row], row: Row, evidence: Evidence) -> Row | None:
    """The candidate that compares best: the same batch, then one with a verdict of the bench, then the same
    runtime, then one that was timed.

    A candidate in another runtime is compared with the first candidate.
    """
    others = [other for other in candidates if other.batch == row.batch]
    if row in others:
        return others[0] if others[0] != row else None

    def order(other: Row) -> tuple[bool, bool, bool]:
        return not evidence.comparison(row, other), other.runtime != row.runtime, other.p50 is None

    return min(others, key=order, default=None)


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


def _delta(row: Row, reference: Row, evidence: Evidence) -> Delta:
    timed = evidence.comparison(row, reference)
    this, other = evidence.conditions(row), evidence.conditions(reference)
    return Delta(
        reference=reference.name,
        speedup=1 / timed.ratio if timed and timed.ratio > 0 else ratio(reference.p50, row.p50),
        latency_interval=timed.interval if timed else None,
        verdict=timed.verdict if timed else None,
        rounds=timed.rounds if timed else None,
        not_comparable=this.latencies_differ_by(other),
        no_verdict="" if timed else _no_verdict(row, reference, evidence),
        **fields_of_rows(row, reference),
        **accuracy_fields(
            row, reference, this.images == other.images, evidence.paired_answers(row, reference)
        ),
    )


def _no_verdict(row: Row, reference: Row, evidence: Evidence) -> str:
    """A bench step times all its models side by side, and compares each with its first one."""
    compares = any(step == row.bench for step, *_ in evidence.comparisons)
    return "medians alone" if row.bench == reference.bench and compares else NOT_SIDE_BY_SIDE


def fields_of_rows(row: Row, reference: Row) -> dict[str, Any]:
    """Of a Delta: what the two rows say of themselves."""
    return {
        "reference_format": reference.format,
        "reference_precision": reference.precision,
        "reference_runtime": reference.runtime,
        "runtime": row.runtime,
        "size_ratio": ratio(row.size_bytes, reference.size_bytes),
        "macs_ratio": ratio(row.macs, reference.macs),
    }


def accuracy_fields(
    row: Row, reference: Row, same_images: bool, answers: PairedAnswers | None
) -> dict[str, Any]:
    """Of a Delta: the difference of top-1, and its interval, image by image where there are `answers` of both."""
    if row.top1 is None or reference.top1 is None:
        return {}
    if not same_images:
        return {"other_images": True}
    difference = {"top1_difference": row.top1 - reference.top1}
    if not row.n or not reference.n:
        return difference
    if answers:
        return difference | paired_difference(*answers)
    interval = unpaired_interval(row.top1, row.n, reference.top1, reference.n)
    return difference | {"top1_interval": interval, "n": min(row.n, reference.n)}


def paired_difference(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Of a Delta: the fields that answers to the same images give, 1 for a right one."""
    pairs, n = list(zip(before, after, strict=True)), len(before)
    lost, won = pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))
    return {
        "top1_interval": paired_interval(lost, won, n),
        "n": n,
        "paired": True,
        "lost": lost,
        "won": won,
        "p_value": mcnemar(lost, won),
    }


def ratio(value: Number | None, reference: Number | None) -> float | None:
    """None where either is not known, or zero."""
    return value / reference if value and reference else None


def with_front(rows: list[Row]) -> list[Row]:
    """Mark the front of (p50 latency, top-1) of each batch size, among rows of the same conditions."""
    marked = list(rows)
    for batch, group in {(row.batch, row.group) for row in rows}:
        points = {
            index: (row.p50, row.top1)
            for index, row in enumerate(rows)
            if (row.batch, row.group) == (batch, group)
            and row.computes
            and row.p50 is not None
            and row.top1 is not None
        }
        indices = list(points)
        for place in pareto_front(list(points.values())):
            index = indices[place]
            marked[index] = rows[index].model_copy(update={"on_front": True})
    return marked
