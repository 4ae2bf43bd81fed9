"""`optkit` in processes of their own, to be killed. What takes seconds to import is imported only once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from optkit.cli import main

STAGES = ("finetune", "distill", "prune", "export", "quantize", "bench", "evaluate")
DEADLINE_S = 900

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload([f"optkit.stages.{stage}.stage" for stage in STAGES])


def start(folder: Path, *arguments: str) -> BaseProcess:
    """`optkit ARGUMENTS` in `folder`; what it says is written to `folder`/log."""
    folder.mkdir(exist_ok=True)
    process = _server.Process(target=_run, args=(folder, arguments))
    process.start()
    return process


def finish(folder: Path, *arguments: str) -> str:
    """Run `optkit ARGUMENTS` in `folder` to its end and return what it says."""
    process = start(folder, *arguments)
    process.join(DEADLINE_S)
    text, status = (folder / "log").read_text(), process.exitcode
    process.kill()  # if it hangs
    assert status == 0, text
    return text


def _run(folder: Path, arguments: tuple[str, ...]) -> None:
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["optkit", *arguments]
    main()
