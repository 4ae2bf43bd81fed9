"""Several runs side by side: the same models, runtimes and batch sizes against those of the first run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optkit.core.errors import UsageError
from optkit.core.types import Measurement, Record
from optkit.report.collect import collect, read_steps
from optkit.report.compare import (
    NOT_SIDE_BY_SIDE,
    Answers,
    PairedAnswers,
    accuracy_fields,
    answers_by,
    answers_of,
    fields_of_rows,
    ratio,
    with_front,
)
from optkit.report.conditions import conditions, with_groups
from optkit.report.gate_schema import Gate
from optkit.report.headline import sentences
from optkit.report.schema import Delta, Machine, Report, Row, Step

Spot = tuple[str, str, int | None]  # a row's model, runtime and batch size


class Run(Record):
    """A run as the comparison shows it; `machine` is where it was benched, `is_partial` tells of Ctrl-C."""

    name: str
    folder: str
    headline: tuple[str, ...]
    gates: tuple[Gate, ...]
    machine: Machine
    is_partial: bool
    rows: tuple[Row, ...]


class Difference(Record):
    """A fact about the machine or a package's version in which the runs differ, one value for each run."""

    name: str
    values: tuple[str, ...]


class Pair(Record):
    """A row of a later run against the same one of the first run."""

    run: str
    before: Row
    after: Row
    delta: Delta


class Runs(Record):
    """What `optkit report A/ B/` shows. `rows` are those of all runs, named after their run and with the delta
    against the first one."""

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    machine_differences: tuple[Difference, ...]
    package_differences: tuple[Difference, ...]
    unmatched: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A run, its steps by name, and their answers."""

    run: Run
    steps: dict[str, Step]
    answers: Answers


def compare_runs(folders: Sequence[Path]) -> Runs:
    """Two runs or more; the first one is what the others are compared with."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("A run cannot be compared with itself.", hint="Give different folders.")
    names = _names(folders)
    runs = [_read(name, folder) for name, folder in zip(names, folders, strict=True)]
    pairs = [[_pair(runs[0], other, row) for row in other.run.rows] for other in runs[1:]]
    of_first: list[Pair | None] = [None] * len(runs[0].run.rows)
    rows = [
        _row_of_run(one.run, row, pair)
        for one, found in zip(runs, [of_first, *pairs], strict=True)
        for row, pair in zip(one.run.rows, found, strict=True)
    ]
    found = [conditions(row, one.steps) for one in runs for row in one.run.rows]
    machines = [one.run.machine for one in runs]
    return Runs(
        runs=tuple(one.run for one in runs),
        rows=tuple(with_front(with_groups(rows, found))),
        pairs=tuple(pair for found in pairs for pair in found if pair),
        machine_differences=_differences([machine.facts for machine in machines]),
        package_differences=_differences([machine.packages for machine in machines]),
        unmatched=tuple(_unmatched([one.run for one in runs])),
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The ends of the paths that tell them apart, without what these end on alike: `a/run`, `b/run` → `a`, `b`."""
    parts = [folder.resolve().parts for folder in folders]
    for start in range(1, max(map(len, parts)) + 1):
        ends = [part[-start:] for part in parts]
        if len(set(ends)) == len(ends):
            while min(map(len, ends)) > 1 and len({end[-1] for end in ends}) == 1:
                ends = [end[:-1] for end in ends]
            return ["/".join(end) for end in ends]
    raise ValueError("two folders are the same")


def _read(name: str, folder: Path) -> _Source:
    steps = {step.name: step for step in read_steps(folder)}
    return _Source(_run(name, folder, collect(folder)), steps, answers_of(steps.values()))


def _run(name: str, folder: Path, report: Report) -> Run:
    benches = {step.name for step in report.steps if step.manifest.stage == "bench"}
    benched = [machine for machine in report.machines if benches.intersection(machine.steps)]
    return Run(
        name=name,
        folder=str(folder),
        headline=tuple(sentences(report)),
        gates=report.gates,
        machine=(benched or list(report.machines))[-1],
        is_partial=any(bench.interrupted for bench in report.benches),
        rows=report.rows,
    )


def _row_of_run(run: Run, row: Row, pair: Pair | None) -> Row:
    """The row under a name that says its run, with its difference from the first one."""
    return row.model_copy(
        update={
            "name": f"{run.name}: {row.name}",
            "against_baseline": pair and pair.delta,
            "against_source": None,
            "on_front": False,
        }
    )


def _spot(row: Row) -> Spot:
    return row.name, row.runtime, row.batch


def _counterpart(row: Row, run: Run, other: Run) -> Row | None:
    """The row of `other` by the bench step of the same name, or else the only such row of either run."""
    same, own = ([one for one in rows if _spot(one) == _spot(row)] for rows in (other.rows, run.rows))
    by_bench = [one for one in same if one.bench == row.bench]
    if len(by_bench) == 1:
        return by_bench[0]
    return same[0] if len(same) == len(own) == 1 else None


def _pair(first: _Source, other: _Source, row: Row) -> Pair | None:
    before = _counterpart(row, other.run, first.run)
    if before is None or not before.computes or not row.computes:
        return None
    old, new = conditions(before, first.steps), conditions(row, other.steps)
    delta = Delta(
        reference=f"{first.run.name}: {before.name}",
        speedup=ratio(before.p50, row.p50),
        latency_interval=_ratio_interval(before, row),
        not_comparable=old.latencies_differ_by(new),
        no_verdict=NOT_SIDE_BY_SIDE,
        **fields_of_rows(row, before),
        **accuracy_fields(row, before, old.images == new.images, _paired_answers(before, row, first, other)),
    )
    return Pair(run=other.run.name, before=before, after=row, delta=delta)


def _ratio_interval(before: Row, after: Row) -> tuple[float, float] | None:
    """What the two intervals of p50 leave open; wider than an interval of the ratio would be."""
    this, other = after.latency_intervals.get("p50"), before.latency_intervals.get("p50")
    return (this[0] / other[1], this[1] / other[0]) if this and other and min(other) > 0 else None


def _paired_answers(before: Row, after: Row, first: _Source, other: _Source) -> PairedAnswers | None:
    """Those to the same images of the same data."""
    old, new = answers_by(before, first.answers), answers_by(after, other.answers)
    if not old or not new or not _places(old) or _places(old) != _places(new):
        return None
    return (old.samples, new.samples) if len(old.samples) == len(new.samples) else None


def _places(found: Measurement) -> list[int] | None:
    """Of the images in their set."""
    return found.conditions.get("indices")


def _differences(facts: Sequence[dict[str, Any]]) -> tuple[Difference, ...]:
    names = dict.fromkeys(name for known in facts for name in known)
    found = [(name, [_in_words(known.get(name)) for known in facts]) for name in names]
    return tuple(
        Difference(name=name, values=tuple(values)) for name, values in found if len(set(values)) > 1
    )


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_in_words, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(inner)}" for name, inner in value.items())
    return "–" if value is None else str(value)


def _unmatched(runs: Sequence[Run]) -> list[str]:
    """Rows that no other run has the like of, in words."""
    return [
        f"{run.name}: {_in_full(row, run)}"
        for run in runs
        for row in run.rows
        if not any(_counterpart(row, run, other) for other in runs if other is not run)
    ]


def _in_full(row: Row, run: Run) -> str:
    """`int8 in onnxruntime, batch 1`, and by which bench step where several timed that."""
    if not row.bench:
        return row.name
    alike = [one for one in run.rows if _spot(one) == _spot(row)]
    step = f", by {row.bench}" if len(alike) > 1 else ""
    return f"{row.name} in {row.runtime}, batch {row.batch}{step}"
