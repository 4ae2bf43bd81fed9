"""`optkit report`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import _console

HELP = """Make the report of a run again, from its manifests alone.

[bold]Examples[/]

    optkit report runs/quickstart

    optkit report runs/quickstart --baseline student --out shared/
"""


def command(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    baseline: Annotated[
        str | None, typer.Option(help="Step that the others are compared with; default: the first one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the report; default: the run's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON object on stdout.")] = False,
) -> None:
    """Collect and render."""
    from optkit.report import collect, render, text

    report = collect.collect(run, baseline)
    paths = render.render(report, out or run)
    if as_json:
        _console.out.file.write(render.to_json(report))
    else:
        for line in text.headline(report):
            _console.out.print(line, markup=False, highlight=False)
        for path in paths.values():
            _console.out.print(str(path), markup=False, highlight=False, soft_wrap=True)
    if (run / "recipe.yaml").is_file():
        _console.next_command(f"optkit run {shlex.quote(str(run / 'recipe.yaml'))} --dry-run")
