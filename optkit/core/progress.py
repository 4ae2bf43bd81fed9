"""How stages tell what they are doing, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """A running piece of work."""

    def advance(self, steps: int = 1, note: str = "") -> None: ...


class Reporter(Protocol):
    """Listener of a stage. `warn` also ends in the manifest and the report."""

    def track(self, description: str, total: int | None = None) -> AbstractContextManager[Task]: ...

    def info(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


class _SilentTask:
    def advance(self, steps: int = 1, note: str = "") -> None:
        """Nobody is listening."""


class SilentReporter:
    """Shows nothing and keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    @contextmanager
    def track(self, description: str, total: int | None = None) -> Iterator[Task]:
        yield _SilentTask()

    def info(self, message: str) -> None:
        """Nobody is listening."""

    def warn(self, message: str) -> None:
        self.warnings.append(message)


class WarningRecorder:
    """Passes everything on to `listener` and keeps the warnings for the manifest."""

    def __init__(self, listener: Reporter) -> None:
        self._listener = listener
        self.warnings: list[str] = []

    def track(self, description: str, total: int | None = None) -> AbstractContextManager[Task]:
        return self._listener.track(description, total)

    def info(self, message: str) -> None:
        self._listener.info(message)

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            self._listener.warn(message)
