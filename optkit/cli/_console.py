"""Everything that is written for people: progress and notes on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from optkit.core.errors import OptkitError
from optkit.core.machine import process_rank

out = Console()
err = Console(stderr=True)


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self.note = ""

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.note = note or self.note
        self._progress.update(self._task, advance=steps, note=escape(note))


class ConsoleReporter:
    """Progress bars on stderr, where somebody is looking; plain lines where it is a file.

    Of several processes that run the command together, only the main one speaks.
    """

    def __init__(self) -> None:
        self._is_quiet = process_rank() > 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=err,
            transient=True,
        )

    def __enter__(self) -> ConsoleReporter:
        if err.is_terminal and not self._is_quiet:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def track(self, description: str, total: int | None = None) -> Iterator[_Bar]:
        task = self._progress.add_task(escape(description), total=total, note="")
        bar = _Bar(self._progress, task)
        try:
            yield bar
        finally:
            self._progress.remove_task(task)
        if not err.is_terminal and not self._is_quiet:  # a log gets a line when the work is done
            err.print(f"  {escape(description)} {escape(bar.note)}".rstrip(), highlight=False)

    def info(self, message: str) -> None:
        if not self._is_quiet:
            err.print(escape(message), highlight=False)

    def warn(self, message: str) -> None:
        if not self._is_quiet:
            err.print(f"[bold yellow]warning:[/] {escape(message)}", highlight=False)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout, nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_error(error: OptkitError, as_json: bool) -> None:
    """What, why, what to do; as JSON on stdout too when that was asked for."""
    notes = getattr(error, "__notes__", [])
    message = error.message + "".join(f" ({note})" for note in notes)
    if as_json:
        print_json(
            {
                "error": {
                    "message": message,
                    "why": error.why,
                    "hint": error.hint,
                    "exit_code": error.exit_code,
                }
            }
        )
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    for label, text in (("why:", error.why), ("what to do:", error.hint)):
        if text:
            err.print(f"[bold]{label}[/] {escape(text)}", highlight=False, soft_wrap=True)


WHOLE = 12  # characters of a cell that is not folded


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout; texts are shown as they are, markup and all."""
    out.print(f"[bold]{escape(title)}[/]", highlight=False)  # a table's own title wraps at the table's width
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        # Figures stay whole, to the right; names and sentences fold, to the left.
        is_short = index > 0 and all(len(row[index]) <= WHOLE for row in rows)
        is_text = index == 0 or any(len(row[index]) > WHOLE and row[index][0].isalpha() for row in rows)
        found.add_column(column, justify="left" if is_text else "right", overflow="fold", no_wrap=is_short)
    for row in rows:
        found.add_row(*(escape(cell) for cell in row))
    out.print(found)


def next_command(command: str) -> None:
    """The exact command that comes next."""
    err.print(f"[bold]next:[/] {escape(command)}", highlight=False, soft_wrap=True)
