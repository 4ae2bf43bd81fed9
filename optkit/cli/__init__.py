"""The command line. Every module here without an underscore is a command; its file name is its name."""

from __future__ import annotations

import importlib
import sys

# Commands whose stage starts a process first of all: it imports what it needs while this one does.
STARTS_EARLY = {"bench": "optkit.stages.bench.process", "gate": "optkit.stages.bench.process"}


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in STARTS_EARLY and {"-h", "--help"}.isdisjoint(arguments):
        importlib.import_module(STARTS_EARLY[arguments[0]]).start_early()
    from optkit.cli._app import run

    sys.exit(run(arguments))
