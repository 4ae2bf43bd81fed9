"""Manifests → a report: rows, deltas, the Pareto front. Reads manifests and nothing else."""

from __future__ import annotations

import heapq
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from optkit.core.errors import InputError, UsageError, closest
from optkit.core.store import read_manifest
from optkit.core.types import MANIFEST
from optkit.report.bench_schema import Bench
from optkit.report.benches import KEPT, benches
from optkit.report.compare import with_deltas, with_front
from optkit.report.conditions import conditions, images_of, with_groups
from optkit.report.datacard import data_cards
from optkit.report.estimates import estimates
from optkit.report.evaluation_schema import Evaluation
from optkit.report.findings import evaluations, explanations, unreadable
from optkit.report.gate import gates
from optkit.report.quantisation import quantized
from optkit.report.schema import Machine, Report, Row, Step, Warned

RECIPE = "recipe.yaml"
LOADS = ("offline", "server")  # of a bench, beside single calls
ROWS = TypeAdapter(tuple[Row, ...])
# By stage: what of the details the steps of a report go without.
LEFT_OUT = {
    "evaluate": ("files", "labels", "predictions", "confusion"),  # one entry an image or more
    "bench": KEPT,  # they are in the report's `benches`
}


def collect(run_dir: Path, baseline: str | None = None) -> Report:
    """Read the artifacts in `run_dir`; `baseline` is a model's name (or what the bench was given for it), by
    default that of the first row."""
    steps = read_steps(run_dir)
    rows = [row for step in steps for row in _bench_rows(step)]
    names = list(dict.fromkeys(row.name for row in rows if row.computes))
    baseline = _as_given(steps).get(baseline or "", baseline)
    if baseline is not None and baseline not in names:
        raise UsageError(f"No benched model is called {baseline!r}.", hint=closest(baseline, names))
    first = baseline or (names[0] if names else None)
    unbenched = _unbenched_rows(steps, {row.key for row in rows})
    evaluated = evaluations(steps)
    comparable = _comparable(evaluated, [*rows, *unbenched], steps)
    benched = benches(steps)
    by_name = {step.name: step for step in steps}
    rows = [_with_top1(row, comparable) for row in rows]
    rows = with_groups(rows, [conditions(row, by_name) for row in rows])
    rows = with_front(with_deltas(rows, first, steps, benched))
    unbenched = [_with_top1(row, comparable) for row in unbenched]
    machines = _machines(steps)
    recipe = run_dir / RECIPE
    return Report(
        name=run_dir.resolve().name,
        folder=str(_pictures_of(run_dir)),
        baseline=first,
        rows=(*rows, *unbenched),
        steps=tuple(_without_samples(step) for step in steps),
        evaluations=tuple(evaluated),
        explanations=tuple(explanations(steps)),
        data=tuple(data_cards(steps)),
        quantized=tuple(quantized(steps)),
        benches=tuple(benched),
        gates=tuple(gates(steps)),
        estimates=tuple(estimates(steps)),
        warnings=tuple(_warnings(steps, benched, machines)),
        machines=tuple(machines),
        recipe=recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else None,
        commands=tuple(_commands(run_dir, machines)),
    )


def _as_given(steps: list[Step]) -> dict[str, str]:
    """The names of rows by what the bench was given: the paths that they are short for."""
    known = [step.manifest.details.get("models") for step in steps if step.manifest.stage == "bench"]
    return {
        given: name
        for names in known
        if isinstance(names, dict)
        for name, given in names.items()
        if isinstance(given, str)
    }


def _pictures_of(run_dir: Path) -> Path:
    """The folder that has a folder for each step."""
    return run_dir.resolve().parent if (run_dir / MANIFEST).is_file() else run_dir


def _without_samples(step: Step) -> Step:
    """The step without its raw samples, which its manifest file keeps, and without what the report has besides."""
    manifest = step.manifest
    left_out = LEFT_OUT.get(manifest.stage, ())
    details = {name: value for name, value in manifest.details.items() if name not in left_out}
    return step.model_copy(
        update={"manifest": manifest.model_copy(update={"measurements": (), "details": details})}
    )


def _comparable(evaluated: list[Evaluation], rows: list[Row], steps: list[Step]) -> list[Evaluation]:
    """The evaluations that may stand in one table: on validation images of the data that the rows' own figures
    are of or, where no row has any, that the first evaluation used."""
    data = {step.name: images_of(step) for step in steps}
    usable = [evaluation for evaluation in evaluated if evaluation.split != "train"]
    own = [data[row.bench or row.name] for row in rows if row.computes and row.top1 is not None]
    wanted = own or [data[evaluation.step] for evaluation in usable[:1]]
    return [one for one in usable if all(data[one.step] == other for other in wanted)]


def _with_top1(row: Row, evaluated: list[Evaluation]) -> Row:
    """The row with the top-1 of an evaluation of its model, where no bench step measured one.

    Another runtime may answer differently.
    """
    for evaluation in evaluated:
        top1 = evaluation.figure("top1")
        fits = evaluation.model_key == row.key
        fits = fits and (not row.bench or evaluation.runtime == row.runtime)
        if top1 and fits and row.computes and (row.top1 is None or not row.bench):
            known = {"top1": top1.value, "top1_interval": top1.interval, "n": evaluation.n}
            return row.model_copy(update={**known, "top1_step": evaluation.step})
    return row


def read_steps(run_dir: Path) -> list[Step]:
    """The steps in the order of their lineage, and by the time they were made where that leaves a choice."""
    if not run_dir.is_dir():
        raise InputError(
            f"There is no run folder {str(run_dir)!r}.", hint="Give a folder that `optkit run` wrote."
        )
    is_artifact = (run_dir / MANIFEST).is_file()  # the result of a single command
    found = {
        folder.name: read_manifest(folder)
        for folder in ([run_dir.resolve()] if is_artifact else sorted(run_dir.iterdir()))
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
    details, loads = step.manifest.details, step.manifest.config.get("loads")
    known = {"bench": step.name, "is_partial": bool(details.get("interrupted"))}
    try:
        rows = [row.model_copy(update=known) for row in ROWS.validate_python(details.get("rows", ()))]
    except ValidationError as error:
        raise unreadable(step, error, "rows") from None
    # Older manifests do not tell which loads were asked for.
    return [_with_loads(row, loads) for row in rows] if isinstance(loads, list) else rows


def _with_loads(row: Row, loads: list[str]) -> Row:
    """The row with a reason for every load that it has no figure of, where the bench gave none."""
    gaps = {load: _load_gap(row, load, loads) for load in LOADS if getattr(row, load) is None}
    known = {load: why for load, why in gaps.items() if why}
    return row.model_copy(update={"not_measured": known | row.not_measured})


def _load_gap(row: Row, load: str, loads: list[str]) -> str:
    if load not in loads:
        return f"not asked for (--loads {load})"
    if load == "server" and (row.batch or 1) > 1:
        return "belongs to batch 1: its requests are single images"
    return row.not_measured.get("latency_ms", "")


def _unbenched_rows(steps: list[Step], benched: set[str]) -> list[Row]:
    """Models that no bench step covers, with what their own steps measured."""
    rows = []
    for step in steps:
        manifest = step.manifest
        if not manifest.format.is_model or manifest.key in benched:
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
                top1_step=step.name if "top1" in known else "",
                not_measured=dict.fromkeys(sorted(empty), "not benched"),
                **known,
            )
        except ValidationError as error:
            raise unreadable(step, error, "metrics") from None
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


def _warnings(steps: list[Step], benched: list[Bench], machines: list[Machine]) -> list[Warned]:
    warnings = [Warned(step=step.name, text=text) for step in steps for text in step.manifest.warnings]
    told = [warned.text for warned in warnings]
    warnings = [crash for bench in benched for crash in _crashes(bench, told)] + warnings
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


def _crashes(bench: Bench, told: Sequence[str]) -> list[Warned]:
    """The processes that failed, as far as the step's own warnings have not `told` of them."""
    return [
        Warned(step=bench.step, text=f"crashed: {failed.name} in {failed.runtime}: {failed.why}")
        for failed in bench.failed
        if not any(failed.name in text and failed.why in text for text in told)
    ]


def _commands(run_dir: Path, machines: list[Machine]) -> list[str]:
    """How to get the same packages and run the same recipe, from the folder in which `run` was called."""
    last = machines[-1].packages
    # The local part of a version ("+cpu") is no pin that the package index knows.
    pins = [f"{name}=={version.split('+')[0]}" for name, version in last.items() if name != "optkit"]
    commands = [f"pip install {shlex.join(pins)}"] if pins else []
    if (run_dir / RECIPE).is_file():
        commands.append(f"optkit run {shlex.quote(str(run_dir / RECIPE))}")
    return commands
