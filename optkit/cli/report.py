"""`optkit report`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli import _console

HELP = """Make the report of a run again, from its manifests alone; or compare several runs on one page.

Writes report.html, .md (for a pull request), .csv and .json. Of several runs, the first one is what the others are
compared with, and the files are called comparison.*.

[bold]Examples[/]

    optkit report runs/quickstart

    optkit report runs/quickstart --baseline student --out shared/

    optkit report runs/before runs/after
"""


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs, or of the results of single commands.", show_default=False),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Model that the others are compared with, of a single run; default: the first one."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", file_okay=False, help="Folder for the report; default: that of the first run."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON object on stdout.")] = False,
) -> None:
    """Collect and render."""
    from optkit.core.errors import UsageError

    folder = out or runs[0]
    if out:
        _check_folder(out)
    if len(runs) > 1 and baseline is not None:
        raise UsageError(
            "--baseline is for the report of a single run.",
            why="Of several runs, each model is compared with itself in the first run.",
            hint="Leave it out, or give one run.",
        )
    lines, paths = _one(runs[0], baseline, folder) if len(runs) == 1 else _several(runs, folder)
    if as_json:
        _console.out.file.write(paths["json"].read_text(encoding="utf-8"))
    else:
        for line in (*lines, *map(str, paths.values())):
            _console.out.print(line, markup=False, highlight=False, soft_wrap=True)
    if (runs[0] / "recipe.yaml").is_file() and len(runs) == 1:
        _console.next_command(f"optkit run {shlex.quote(str(runs[0] / 'recipe.yaml'))} --dry-run")


def _check_folder(out: Path) -> None:
    from optkit.core.errors import InputError

    for parent in out.parents:
        if parent.exists() and not parent.is_dir():
            raise InputError(
                f"The folder {str(out)!r} cannot be made.",
                why=f"{str(parent)!r} is a file.",
                hint="Give another folder with --out.",
            )


def _one(run: Path, baseline: str | None, folder: Path) -> tuple[list[str], dict[str, Path]]:
    from optkit.report import collect, headline, render

    report = collect.collect(run, baseline)
    return headline.headline(report), render.render(report, folder)


def _several(runs: list[Path], folder: Path) -> tuple[list[str], dict[str, Path]]:
    from optkit.report import compare_runs, render_runs

    found = compare_runs.compare_runs(runs)
    return render_runs.headline(found), render_runs.render_runs(found, folder)
