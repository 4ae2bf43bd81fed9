"""The command line. Every module here without an underscore is a command; its file name is its name."""

from __future__ import annotations

import importlib
import sys

from optkit.core.errors import EXIT_INTERRUPTED


def main() -> None:
    """Entry point. A bench needs processes, of which the first imports what it needs while this one does."""
    arguments = sys.argv[1:]
    try:
        if arguments[:1] == ["bench"] and {"-h", "--help"}.isdisjoint(arguments):
            importlib.import_module("optkit.stages.bench.process").start_early()
        from optkit.cli import _app
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(_app.main(arguments))
