"""Manifests → a report: rows, deltas, the Pareto front. Reads manifests and nothing else."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from optkit.core.errors import InputError, UsageError, closest
from optkit.core.store import read_artifact
from optkit.core.types import MANIFEST, Format
from optkit.report.compare import with_deltas, with_front
from optkit.report.schema import Machine, Report, Row, Step, Warned

RECIPE = "recipe.yaml"
ROWS = "rows"  # where a bench manifest's `details` keep them


def collect(run_dir: Path, baseline: str | None = None) -> Report:
    """Read the artifacts in `run_dir`; `baseline` is a model's name, by default that of the first row."""
    steps = _read_steps(run_dir)
    rows = [row for step in steps for row in _bench_rows(step)]
    names = list(dict.fromkeys(row.name for row in rows if row.computes))
    if baseline is not None and baseline not in names:
        raise UsageError(f"No benched model is called {baseline!r}.", hint=closest(baseline, names))
    first = baseline or (names[0] if names else None)
    rows = with_front(with_deltas(rows, first, steps))
    machines = _machines(steps)
    recipe = run_dir / RECIPE
    return Report(
        name=run_dir.resolve().name,
        baseline=first,
        rows=(*rows, *_unbenched_rows(steps, {row.key for row in rows})),
        steps=tuple(_without_samples(step) for step in steps),
        warnings=tuple(_warnings(steps, machines)),
        machines=tuple(machines),
        recipe=recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else None,
        commands=tuple(_commands(run_dir, machines)),
    )


def _without_samples(step: Step) -> Step:
    return step.model_copy(update={"manifest": step.manifest.model_copy(update={"measurements": ()})})


def _read_steps(run_dir: Path) -> list[Step]:
    """The steps in the order of their lineage, and by the time they were made where that leaves a choice."""
    if not run_dir.is_dir():
        raise InputError(
            f"There is no run folder {str(run_dir)!r}.", hint="Give a folder that `optkit run` wrote."
        )
    found = {
        folder.name: read_artifact(folder).manifest
        for folder in sorted(run_dir.iterdir())
        if not folder.name.startswith(".") and (folder / MANIFEST).is_file()
    }
    if not found:
        raise InputError(
            f"{str(run_dir)!r} holds no artifacts.",
            why=f"None of its folders has a {MANIFEST}.",
            hint="Give a folder that `optkit run` wrote, such as runs/quickstart.",
        )
    by_key = {manifest.key: name for name, manifest in reversed(found.items())}
    steps = {}
    for name, manifest in found.items():
        keys = [key for role in manifest.inputs.values() for key in role]
        sources = dict.fromkeys(by_key.get(key, key) for key in keys)
        steps[name] = Step(name=name, manifest=manifest, sources=tuple(sources))
    return _sorted_by_lineage(steps)


def _sorted_by_lineage(steps: dict[str, Step]) -> list[Step]:
    waiting = {name: {source for source in step.sources if source in steps} for name, step in steps.items()}
    ready = [(steps[name].manifest.created, name) for name, sources in waiting.items() if not sources]
    heapq.heapify(ready)
    order = []
    while ready:
        _, done = heapq.heappop(ready)
        order.append(steps[done])
        for name, sources in waiting.items():
            if done in sources:
                sources.remove(done)
                if not sources:
                    heapq.heappush(ready, (steps[name].manifest.created, name))
    if len(order) < len(steps):
        raise InputError(
            "The artifacts' inputs form a circle.", hint="A manifest was changed by hand; run again."
        )
    return order


def _bench_rows(step: Step) -> list[Row]:
    if step.manifest.stage != "bench":
        return []
    try:
        return [
            Row.model_validate({**row, "bench": step.name}) for row in step.manifest.details.get(ROWS, [])
        ]
    except (ValidationError, TypeError) as error:
        raise InputError(
            f"The rows of bench step {step.name!r} cannot be read.",
            why=str(error).replace("\n", " ")[:300],
            hint="They were written by another version; run the step again.",
        ) from None


def _unbenched_rows(steps: list[Step], benched: set[str]) -> list[Row]:
    """Models that no bench step covers, with what their own steps measured."""
    rows = []
    for step in steps:
        manifest = step.manifest
        if manifest.format is Format.RESULT or manifest.key in benched:
            continue
        fields = ("top1", "top1_interval", "n", "macs", "params")
        known = {
            field: manifest.metrics[field] for field in fields if manifest.metrics.get(field) is not None
        }
        entry = manifest.files.get(manifest.format.filename)
        empty = {"latency_ms", "throughput", "top1", "macs", "params", "agreement"} - known.keys()
        try:
            row = Row(
                name=step.name,
                key=manifest.key,
                format=manifest.format.value,
                precision=manifest.precision.value,
                size_bytes=entry.size_bytes if entry else None,
                not_measured=dict.fromkeys(sorted(empty), "not benched"),
                **known,
            )
        except ValidationError as error:
            why = str(error).replace("\n", " ")[:300]
            raise InputError(f"The metrics of step {step.name!r} cannot be read.", why=why) from None
        rows.append(row)
    return rows


def _machines(steps: list[Step]) -> list[Machine]:
    """The different machines and package sets, in order, each with its steps."""
    found: list[tuple[dict[str, Any], dict[str, str], list[str]]] = []
    for step in steps:
        here = (step.manifest.machine, step.manifest.packages)
        for facts, packages, names in found:
            if (facts, packages) == here:
                names.append(step.name)
                break
        else:
            found.append((*here, [step.name]))
    return [Machine(facts=facts, packages=packages, steps=tuple(names)) for facts, packages, names in found]


def _warnings(steps: list[Step], machines: list[Machine]) -> list[Warned]:
    warnings = [Warned(step=step.name, text=text) for step in steps for text in step.manifest.warnings]
    benches = {step.name for step in steps if step.manifest.stage == "bench"}
    hardware = [
        (machine.facts.get("cpu"), machine.facts.get("gpus"))
        for machine in machines
        if benches.intersection(machine.steps)
    ]
    if any(other != hardware[0] for other in hardware):
        text = "The bench steps ran on different machines: do not compare latencies between them."
        warnings.insert(0, Warned(step="", text=text))
    return warnings


def _commands(run_dir: Path, machines: list[Machine]) -> list[str]:
    """How to get the same packages and run the same recipe, from the folder in which `run` was called."""
    last = machines[-1].packages
    # The local part of a version ("+cpu") is no pin that the package index knows.
    pins = " ".join(
        f"'{name}=={version.split('+')[0]}'" for name, version in last.items() if name != "optkit"
    )
    commands = [f"pip install {pins}"] if pins else []
    if (run_dir / RECIPE).is_file():
        commands.append(f"optkit run {run_dir / RECIPE}")
    return commands
