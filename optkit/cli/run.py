"""`optkit run`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optkit.cli import _console, bench, gate
from optkit.cli._run import RUNS, STORE, PartialResults
from optkit.cli._run_folder import folder_names, prepare
from optkit.core.errors import EXIT_OK, UsageError
from optkit.core.machine import process_rank

if TYPE_CHECKING:
    from optkit.core.types import Artifact
    from optkit.pipeline import Plan

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
    settings = list(overrides or []) + ([f"seed={seed}"] if seed is not None else [])
    plan = _plan(recipe_file, settings, junit)
    if dry_run:
        _show_plan(plan, as_json)
        options = "".join(f" --set {shlex.quote(setting)}" for setting in settings)
        _console.next_command(f"optkit run {shlex.quote(str(recipe_file))}{options}")
        return
    folder = out or RUNS / plan.recipe.name
    artifacts = _work(plan, folder)
    if process_rank():  # the main process shows what all have worked on
        return
    _finish(folder, artifacts, junit, as_json)
    _console.next_command(f"optkit report {shlex.quote(str(folder))}")
    if code := _exit_code(artifacts):
        raise typer.Exit(code)


def _plan(recipe_file: Path, settings: list[str], junit: Path | None) -> Plan:
    """The plan of the recipe with these settings; UsageError where `junit` could have nothing in it."""
    from optkit import pipeline, recipe
    from optkit.core.store import Store

    plan = pipeline.plan(recipe.recipe_from_yaml(recipe_file, settings), Store(STORE))
    if junit is not None and not any(step.stage == pipeline.GATE for step in plan.steps.values()):
        raise UsageError(
            "--junit writes the verdicts of a budget, and the recipe has none.",
            hint="Add one: `budget: {max_drop: 0.5}`.",
        )
    return plan


def _work(plan: Plan, folder: Path) -> dict[str, Artifact]:
    """Do every step, and show its artifact in the folder; a measurement that Ctrl-C cut off is reported there too."""
    from optkit import pipeline
    from optkit.core.store import copy_artifact

    names = folder_names(list(plan.steps))
    if not process_rank():
        prepare(folder, plan, names)
    with _console.ConsoleReporter() as reporter:
        try:
            return pipeline.run(
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


def _exit_code(artifacts: dict[str, Artifact]) -> int:
    """Of the gates and benches, the one that says most: what is broken before what is undecided."""
    from optkit import pipeline

    deciding = {pipeline.GATE: gate.exit_code, pipeline.BENCH: bench.exit_code}
    stages = [(one.manifest.stage, one) for one in artifacts.values()]
    codes = {deciding[stage](one) for stage, one in stages if stage in deciding}
    return min(codes - {EXIT_OK}, default=EXIT_OK)


def _finish(folder: Path, artifacts: dict[str, Artifact], junit: Path | None, as_json: bool) -> None:
    """Write the report and the verdicts, and say what they say."""
    from optkit import pipeline
    from optkit.core.store import write_atomically
    from optkit.report.junit import junit as to_junit

    gates = {name: one for name, one in artifacts.items() if one.manifest.stage == pipeline.GATE}
    if junit is not None:
        write_atomically(junit, to_junit([one.manifest for one in gates.values()]))
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


def _report(folder: Path) -> tuple[list[str], dict[str, Path]]:
    from optkit.report import collect, headline, render

    report = collect.collect(folder)
    return headline.headline(report), render.render(report, folder)


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
