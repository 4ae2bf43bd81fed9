"""Commands whose time and memory are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).parent / "launcher.py"
TOLD = 600  # characters of what a failed command said


class Failed(Exception):
    """A command ended with an error; `str(error)` is the end of what it said."""


@dataclass(frozen=True)
class Run:
    """Wall clock and CPU seconds of a whole command, its largest resident memory, and what it printed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str


def measured(command: list[str], cwd: Path | None = None, accepted: tuple[int, ...] = (0,)) -> Run:
    """Run `command` without a GPU; Failed when it ends with another than the `accepted` exit codes."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "measured.json"
        done = subprocess.run(
            [sys.executable, "-S", "-E", str(LAUNCHER), str(result), *command],
            capture_output=True,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        if done.returncode not in accepted:
            said = (done.stderr or done.stdout).strip()[-TOLD:]
            raise Failed(f"exit code {done.returncode}: {said}")
        return Run(**json.loads(result.read_text(encoding="utf-8")), stdout=done.stdout)
