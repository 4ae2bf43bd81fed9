"""One family of errors: what happened, why, what to do. `cli` turns them into exit codes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

EXIT_OK = 0
EXIT_FAILED = 1  # a check was made, and what it looked at did not pass
EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_INPUT = 4
EXIT_UNDECIDED = 5  # a check was made, and what was measured does not suffice to say
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class OptkitError(Exception):
    """An error that the user can act on.

    `message` says what is wrong (and with which value), `why` the cause where it is not obvious,
    `hint` what to do next.
    """

    exit_code = EXIT_USAGE

    def __init__(self, message: str, why: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.why, self.hint = message, why, hint


class FailedError(OptkitError):
    """A check was made, and what it looked at did not pass."""

    exit_code = EXIT_FAILED


class UsageError(OptkitError):
    """A recipe, an option or a name that optkit does not understand."""


class MissingError(OptkitError):
    """The machine lacks something: a package, a GPU, a network."""

    exit_code = EXIT_MISSING


class InputError(OptkitError):
    """A file or folder from outside is absent, broken, unsafe or not what it should be."""

    exit_code = EXIT_INPUT


def closest(name: str, known: Iterable[str]) -> str:
    """`did you mean …?` for a misspelt name, or the list of what exists."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else "Known: " + ", ".join(names) + "."


def first_problem(error: ValidationError) -> str:
    """Where outside data is not what it should be, and how: `rows.0.batch: Field required`."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
