"""Running commands inside the test's own process."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from optkit.cli import _app, _console


@dataclass(frozen=True)
class Outcome:
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


def optkit(*arguments: str) -> Outcome:
    """`optkit ARGUMENTS`, with wide lines so that texts are found whole."""
    out, err = io.StringIO(), io.StringIO()
    consoles = _console.out, _console.err
    _console.out = Console(file=out, width=1000)
    _console.err = Console(file=err, width=1000)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = _app.execute(list(arguments))
            sys.stdout.flush()
    finally:
        _console.out, _console.err = consoles
    return Outcome(code, out.getvalue(), err.getvalue())
