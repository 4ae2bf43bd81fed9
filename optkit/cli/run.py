"""`optkit run`."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optkit.cli import _console, bench, gate
from optkit.cli._run import RUNS, STORE, PartialResults
from optkit.core.errors import EXIT_OK, UsageError
from optkit.core.machine import process_rank

if TYPE_CHECKING:
    from optkit.core.types import Artifact
    from optkit.pipeline import Plan

MARKER = ".optkit-run"  # in every folder that `optkit run` made: which sub-folders are its own

HELP = """Run a recipe: every step that is not done yet, then the report.

A run that was cut off goes on where it stopped when the command is given again; a measurement that Ctrl-C cut off is
shown in the report, and made anew. A recipe with a `budget:` ends as `optkit gate` does: exit code 1 when a limit is
broken, 5 when the measurement cannot tell.

[bold]Examples[/]

    optkit run recipes/quickstart.yaml

    optkit run recipes/quickstart.yaml --set prune.ratio=0.5 --dry-run
"""


def command(
    recipe_file: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STEP.OPTION=VALUE", help="Change an option; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every step that has none of its own.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the plan, do nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; default: runs/<name of the recipe>.")
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit", dir_okay=False, help="Write the budget's verdicts as JUnit XML, to this file."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout; progress on stderr.")
    ] = False,
) -> None:
    """Plan, run and report; the budget decides the exit code."""
    from optkit import pipeline, recipe
    from optkit.core.store import Store, copy_artifact, write_atomically
    from optkit.report.junit import junit as to_junit

    settings = list(overrides or []) + ([f"seed={seed}"] if seed is not None else [])
    loaded = recipe.recipe_from_yaml(recipe_file, settings)
    plan = pipeline.plan(loaded, Store(STORE))
    if junit is not None and not any(step.stage == pipeline.GATE for step in plan.steps.values()):
        raise UsageError(
            "--junit writes the verdicts of a budget, and the recipe has none.",
            hint="Add one: `budget: {max_drop: 0.5}`.",
        )
    folder = out or RUNS / loaded.name
    if dry_run:
        _show_plan(plan, as_json)
        options = "".join(f" --set {shlex.quote(setting)}" for setting in settings)
        _console.next_command(f"optkit run {shlex.quote(str(recipe_file))}{options}")
        return
    names = _folder_names(list(plan.steps))
    if not process_rank():
        _prepare(folder, plan, names)
    with _console.ConsoleReporter() as reporter:
        try:
            artifacts = pipeline.run(
                plan, reporter, finished=lambda name, artifact: copy_artifact(artifact, folder / names[name])
            )
        except pipeline.Interrupted as error:
            if process_rank():
                raise
            partial = PartialResults(
                f"{folder / names[error.step]}, and the report of what there is in {folder}"
            )
            _report(folder)
            raise partial from None
    if process_rank():  # the main process shows what all have worked on
        return
    gates = {name: one for name, one in artifacts.items() if one.manifest.stage == pipeline.GATE}
    if junit is not None:
        write_atomically(junit, to_junit([one.manifest for one in gates.values()]))
    _finish(folder, artifacts, gates, as_json)
    _console.next_command(f"optkit report {shlex.quote(str(folder))}")
    codes = {gate.exit_code(one) for one in gates.values()}
    codes |= {bench.exit_code(one) for one in artifacts.values() if one.manifest.stage == pipeline.BENCH}
    if codes - {EXIT_OK}:
        raise typer.Exit(min(codes - {EXIT_OK}))  # broken before undecided


def _finish(folder: Path, artifacts: dict[str, Artifact], gates: dict[str, Artifact], as_json: bool) -> None:
    """Write the report, and say what it says."""
    summary, paths = _report(folder)
    if as_json:
        _console.print_json(
            {
                "run": str(folder),
                "report": str(paths["html"]),
                "rows": json.loads(paths["json"].read_text())["rows"],
                "gates": {name: one.manifest.details for name, one in gates.items()},
            }
        )
        return
    _show_results(artifacts, summary)
    for one in gates.values():
        gate.show(one)
    _console.out.print(f"report: {paths['html']}", highlight=False, soft_wrap=True)


def _folder_names(steps: list[str]) -> dict[str, str]:
    """A folder for every step; a file that was named directly gets its stem, numbered where it is taken."""
    names: dict[str, str] = {}
    for step in steps:
        base = Path(step).stem if "/" in step or "." in step else step
        taken = {*names.values(), *steps} - {step}
        names[step] = next(name for name in _numbered(base) if name not in taken)
    return names


def _numbered(base: str) -> Iterator[str]:
    yield base
    yield from (f"{base}-{number}" for number in count(2))


def _prepare(folder: Path, plan: Plan, names: dict[str, str]) -> None:
    """Mark the folder as a run, keep the recipe in it, and drop steps of an older run; the store has them."""
    from optkit.core.store import write_atomically
    from optkit.recipe import recipe_to_yaml

    marker = folder / MARKER
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not marker.is_file())):
        raise UsageError(
            f"{str(folder)!r} exists and is not a run.",
            why="A run would replace what is in it.",
            hint="Give a folder of its own with --out.",
        )
    old = json.loads(marker.read_text())["folders"] if marker.is_file() else []
    for name in set(old) - set(names.values()):
        shutil.rmtree(folder / Path(name).name, ignore_errors=True)
    write_atomically(marker, json.dumps({"folders": sorted(names.values())}))
    write_atomically(folder / "recipe.yaml", recipe_to_yaml(plan.recipe))


def _report(folder: Path) -> tuple[list[str], dict[str, Path]]:
    from optkit.report import collect, render, text

    report = collect.collect(folder)
    return text.headline(report), render.render(report, folder)


def _show_plan(plan: Plan, as_json: bool) -> None:
    steps: list[dict[str, Any]] = [
        {
            "step": step.name,
            "stage": step.stage,
            "key": step.key,
            "done": step.done,
            "inputs": [name for names in step.inputs.values() for name in names],
        }
        for step in plan.steps.values()
    ]
    if as_json:
        _console.print_json({"recipe": plan.recipe.name, "steps": steps})
        return
    rows = [
        [
            step["step"],
            step["stage"],
            ", ".join(step["inputs"]),
            step["key"],
            "done" if step["done"] else "to do",
        ]
        for step in steps
    ]
    _console.table(f"plan of {plan.recipe.name}", ["step", "stage", "inputs", "key", "state"], rows)


def _show_results(artifacts: dict[str, Artifact], summary: list[str]) -> None:
    for line in summary:
        _console.out.print(line, markup=False, highlight=False)
    for name, artifact in artifacts.items():
        for warning in artifact.manifest.warnings:
            _console.err.print(f"[bold yellow]warning:[/] {name}: ", end="")
            _console.err.print(warning, markup=False, highlight=False, soft_wrap=True)
