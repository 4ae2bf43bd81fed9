"""A model in a process of its own, seen from the process that measures."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from optkit.core.errors import EXIT_FAILED, MissingError, OptkitError

WORKER = "optkit.stages.bench.worker"
LAST_BYTES = 1 << 16  # of what it wrote, in which the last line is looked for
PATIENCE_S = 5.0  # until a process that has hung up is killed


class CrashedError(OptkitError):
    """The process of a model died."""

    exit_code = EXIT_FAILED


class Process:
    """A running worker. `post` a command and `wait` for its answer, or `call` for both at once.

    What the command raised (OptkitError) is raised here; CrashedError when the process died, MissingError when
    none can be started.
    """

    def __init__(self) -> None:
        try:
            self._start()
        except (OSError, ValueError) as error:  # the second: a system that cannot hand on a socket
            raise MissingError(
                "A process for a model cannot be started.",
                why=str(error),
                hint="Free memory, processes or open files (`ulimit -a`), or measure fewer models at once.",
            ) from None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as the process lives
        with theirs:
            # In a session of its own: Ctrl-C is for the process that measures. -P: no module of that name in the
            # current folder is taken for one of the installed packages.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", WORKER, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def post(self, command: str, *arguments: Any) -> None:
        """Ask for something; `wait` has the answer."""
        try:
            self._connection.send((command, arguments))
        except OSError:
            raise self._crashed() from None

    def wait(self) -> Any:
        """The answer to the command that was posted last."""
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError):  # the second when it died in the middle of an answer
            raise self._crashed() from None
        if kind == "error":
            raise value
        return value

    def call(self, command: str, *arguments: Any) -> Any:
        """Ask, and wait for the answer."""
        self.post(command, *arguments)
        return self.wait()

    def close(self) -> None:
        """End the process, whatever it is doing: it keeps nothing, and PyTorch would take a second to put away."""
        self._connection.close()
        with suppress(ProcessLookupError):  # with what it has started, such as compilers
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._stderr.close()

    def _ended(self) -> int:
        """Its exit code; killed when it does not end by itself."""
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _crashed(self) -> CrashedError:
        """How it ended, and the last line that it wrote."""
        code = self._ended()
        signals = {one.value: one.name for one in signal.Signals}
        how = f"was ended by {signals.get(-code, -code)}" if code < 0 else f"ended with exit code {code}"
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - LAST_BYTES))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()[:300]}" if lines else ""
        return CrashedError(
            "The process of the model crashed.",
            why=f"It {how}{last}.",
            hint="The other models were measured. Try another runtime, or fewer --threads.",
        )


_early: Process | None = None


def start_early() -> None:
    """Start a process before it is known what for; `fresh_process` hands it out."""
    global _early
    with suppress(MissingError):  # what the system refuses is told when a process is needed
        _early = Process()


def fresh_process() -> Process:
    """One that has opened nothing yet."""
    global _early
    process, _early = _early or Process(), None
    return process
