"""What a command that benches starts before it imports the rest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from optkit.core.errors import UsageError
from optkit.runtimes.base import DEFAULTS, why_unavailable
from optkit.stages.bench.process import start_early


def begin(arguments: Sequence[str]) -> None:
    """Start the first model's process, as far as the words of the command tell its runtime.

    Of wrong words none is told here: the command itself does that.
    """
    name = _runtime(arguments)
    with suppress(UsageError):
        if name and {"-h", "--help"}.isdisjoint(arguments) and why_unavailable(name) is None:
            start_early(name)


def _runtime(arguments: Sequence[str]) -> str | None:
    """What --runtimes names first, else the default of the first model; None without a model."""
    default = next(filter(None, map(_default, arguments)), None)
    if default is None or "--runtimes" not in arguments[:-1]:
        return default
    return arguments[arguments.index("--runtimes") + 1].split(",")[0]


def _default(argument: str) -> str | None:
    """The runtime of a model file or of an artifact's folder, None for any other word."""
    path = Path(argument)
    for format, runtime in DEFAULTS.items():
        is_file = path.suffix == Path(format.filename).suffix and path.is_file()
        if is_file or (path / format.filename).is_file():
            return runtime
    return None
