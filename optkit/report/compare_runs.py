"""Several runs side by side: the same models, runtimes and batch sizes against those of the first run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optkit.core.errors import UsageError
from optkit.core.types import Measurement, Record
from optkit.report import text
from optkit.report.collect import collect, images_of, read_steps
from optkit.report.compare import paired_difference, unpaired_interval, with_front
from optkit.report.gate_schema import Gate
from optkit.report.schema import Delta, Machine, Report, Row, Step

# What of a machine decides how fast it is; and what is no package that executes a model.
HARDWARE = ("cpu", "cores", "cpu_features", "gpus")
Spot = tuple[str, str, int | None]  # a row's model, runtime and batch size
# By bench step, key and runtime: what decides on the images, and which of them were answered rightly.
Answers = dict[tuple[str, Any, Any], tuple[dict[str, Any], Measurement]]


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


def compare_runs(folders: Sequence[Path]) -> Runs:
    """Two runs or more; the first one is what the others are compared with."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("A run cannot be compared with itself.", hint="Give different folders.")
    names = _names(folders)
    runs = [_run(name, folder, collect(folder)) for name, folder in zip(names, folders, strict=True)]
    answers = [_answers(read_steps(folder)) for folder in folders]
    pairs = [
        pair
        for run, theirs in zip(runs[1:], answers[1:], strict=True)
        for pair in _pairs(runs[0], run, answers[0], theirs)
    ]
    deltas = {(pair.run, _spot(pair.after)): pair.delta for pair in pairs}
    rows = [
        row.model_copy(
            update={
                "name": f"{run.name}: {row.name}",
                "against_baseline": deltas.get((run.name, _spot(row))),
                "against_source": None,
                "on_front": False,
            }
        )
        for run in runs
        for row in run.rows
    ]
    machines = [run.machine for run in runs]
    return Runs(
        runs=tuple(runs),
        rows=tuple(with_front(rows)),
        pairs=tuple(pairs),
        machine_differences=_differences([machine.facts for machine in machines]),
        package_differences=_differences([machine.packages for machine in machines]),
        unmatched=tuple(_unmatched(runs)),
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


def _run(name: str, folder: Path, report: Report) -> Run:
    benches = {step.name for step in report.steps if step.manifest.stage == "bench"}
    benched = [machine for machine in report.machines if benches.intersection(machine.steps)]
    return Run(
        name=name,
        folder=str(folder),
        headline=tuple(text.headline(report)),
        gates=report.gates,
        machine=(benched or list(report.machines))[-1],
        is_partial=any(bench.interrupted for bench in report.benches),
        rows=report.rows,
    )


def _answers(steps: Sequence[Step]) -> Answers:
    return {
        (step.name, found.conditions.get("key"), found.conditions.get("runtime")): (images_of(step), found)
        for step in steps
        for found in step.manifest.measurements
        if found.name == "top1" and found.samples
    }


def _spot(row: Row) -> Spot:
    return row.name, row.runtime, row.batch


def _pairs(first: Run, run: Run, first_answers: Answers, answers: Answers) -> list[Pair]:
    known = {_spot(row): row for row in first.rows if row.computes}
    why = _not_comparable(first.machine, run.machine)
    pairs = []
    for row in run.rows:
        before = known.get(_spot(row))
        if before is not None and row.computes:
            accuracy = _accuracy(before, row, first_answers, answers)
            delta = _delta(first.name, before, row, why, accuracy)
            pairs.append(Pair(run=run.name, before=before, after=row, delta=delta))
    return pairs


def _not_comparable(first: Machine, other: Machine) -> str:
    """Why latencies of the two do not compare, empty where they do."""
    if any(first.facts.get(name) != other.facts.get(name) for name in HARDWARE):
        return "another machine"
    return "other packages" if first.packages != other.packages else ""


def _delta(run: str, before: Row, after: Row, why: str, accuracy: dict[str, Any]) -> Delta:
    known = before.top1 is not None and after.top1 is not None
    return Delta(
        reference=f"{run}: {before.name}",
        reference_format=before.format,
        reference_precision=before.precision,
        reference_runtime=before.runtime,
        runtime=after.runtime,
        speedup=before.p50 / after.p50 if before.p50 and after.p50 else None,
        latency_interval=_ratio_interval(before, after),
        not_comparable=why,
        top1_difference=(after.top1 or 0) - (before.top1 or 0) if known else None,
        **accuracy,
        size_ratio=after.size_bytes / before.size_bytes if before.size_bytes and after.size_bytes else None,
        macs_ratio=after.macs / before.macs if before.macs and after.macs else None,
    )


def _ratio_interval(before: Row, after: Row) -> tuple[float, float] | None:
    """What the two intervals of p50 leave open; wider than an interval of the ratio would be."""
    this, other = after.latency_intervals.get("p50"), before.latency_intervals.get("p50")
    return (this[0] / other[1], this[1] / other[0]) if this and other and min(other) > 0 else None


def _accuracy(before: Row, after: Row, first_answers: Answers, answers: Answers) -> dict[str, Any]:
    """Of a Delta: paired where both saw the same images of the same data, else as of two samples."""
    if before.top1 is None or after.top1 is None or not before.n or not after.n:
        return {}
    images, old = first_answers.get((before.bench, before.key, before.runtime), (None, None))
    other_images, new = answers.get((after.bench, after.key, after.runtime), (None, None))
    places = [found and found.conditions.get("indices") for found in (old, new)]
    same = images and images == other_images and places[0] and places[0] == places[1]
    if old and new and same and len(old.samples) == len(new.samples):
        return paired_difference(old.samples, new.samples)
    interval = unpaired_interval(after.top1, after.n, before.top1, before.n)
    return {"top1_interval": interval, "n": min(before.n, after.n)}


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
    """Rows of single runs, in words."""
    counts = Counter(_spot(row) for run in runs for row in run.rows)
    return [
        f"{run.name}: {row.name}" + (f" in {row.runtime}, batch {row.batch}" if row.bench else "")
        for run in runs
        for row in run.rows
        if counts[_spot(row)] == 1
    ]
