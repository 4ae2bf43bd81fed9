"""The process that a command starts before it is read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from optkit import cli
from optkit.stages.bench import process


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        (["bench", "model.onnx"], 1),
        (["gate", "a", "b"], 1),
        (["bench", "--help"], 0),
        (["--help"], 0),
        (["doctor"], 0),
        ([], 0),
    ],
)
def test_commands_that_bench_start_a_process_first(monkeypatch, arguments, starts):
    started = []
    monkeypatch.setattr(process, "start_early", lambda: started.append(1))
    monkeypatch.setattr("optkit.cli._app.run", lambda given: len(started) if given == arguments else 99)
    monkeypatch.setattr(sys, "argv", ["optkit", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == starts


def test_it_is_started_before_the_rest_is_imported():
    code = (
        "import sys\n"
        "from optkit import cli\n"
        "from optkit.stages.bench import process\n"
        "process.start_early = lambda: sys.exit(str({'typer', 'rich', 'pydantic'} & set(sys.modules)))\n"
        "sys.argv = ['optkit', 'bench', 'model.onnx']\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


def test_the_first_model_has_it(monkeypatch):
    monkeypatch.setattr(process, "_early", [])
    process.start_early()
    early = process._early[0]
    first, second = process.fresh_process(), process.fresh_process()
    try:
        assert first is early
        assert second.pid != first.pid
        with pytest.raises(process.CrashedError, match="crashed"):
            second.call("no such command")
    finally:
        first.close()
        second.close()


def test_the_packages_of_a_runtime_are_imported():
    code = (
        "import sys\n"
        "from optkit.runtimes.base import import_packages\n"
        "before = 'onnxruntime' in sys.modules\n"
        "import_packages('onnxruntime:cpu')\n"
        "print(before, 'onnxruntime' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "True"]
