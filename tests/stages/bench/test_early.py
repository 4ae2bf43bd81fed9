"""The process that `optkit bench` starts before it imports the rest of itself."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from optkit import cli
from optkit.core.errors import EXIT_INTERRUPTED, MissingError
from optkit.stages.bench import process, worker
from optkit.stages.bench.config import Config
from optkit.stages.bench.stage import run
from optkit.stages.bench.worker import Worker


@pytest.fixture(autouse=True)
def none_before_and_after(monkeypatch):
    monkeypatch.setattr(process, "_early", None)
    yield
    if process._early:
        process._early.close()


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        (["bench", "model.onnx"], 1),
        (["bench", "--help"], 0),
        (["gate", "runs/bench"], 0),
        (["--help"], 0),
        ([], 0),
    ],
)
def test_a_bench_starts_one_first(monkeypatch, arguments, starts):
    started = []
    monkeypatch.setattr(process, "start_early", lambda: started.append(1))
    monkeypatch.setattr("optkit.cli._app.main", lambda given: len(started) if given == arguments else 99)
    monkeypatch.setattr(sys, "argv", ["optkit", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == starts


def test_ctrl_c_at_the_very_start(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "start_early", interrupted)
    monkeypatch.setattr(sys, "argv", ["optkit", "bench", "model.onnx"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == EXIT_INTERRUPTED


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


def test_numpy_is_imported_while_the_models_are_opened():
    code = "import sys, optkit.stages.bench.stage; print('numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_the_first_model_has_it(monkeypatch, context, colour_model):
    process.start_early()
    early = process._early
    opened = []
    post = process.Process.post

    def watched(self, command, *arguments):
        if command == "open":
            opened.append(self.pid)
        post(self, command, *arguments)

    monkeypatch.setattr(process.Process, "post", watched)
    model = colour_model()
    run(
        Config(seconds=0.05, threads=1, repeats=1, runtimes=["null"]),
        {"models": {"a": model, "b": model}},
        context,
    )
    assert process._early is None
    assert opened[0] == early.pid != opened[1]


def test_what_the_system_refuses_is_told_when_a_process_is_needed(monkeypatch, context, colour_model):
    def refused(*arguments, **options):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process.subprocess, "Popen", refused)
    process.start_early()
    with pytest.raises(MissingError, match="cannot be started") as caught:
        run(Config(), {"models": {"a": colour_model()}}, context)
    assert "temporarily unavailable" in caught.value.why


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are looked for in /proc")
def test_a_command_that_is_refused_leaves_none_behind(tmp_path):
    code = (
        "import os, sys\n"
        "from optkit import cli\n"
        "from optkit.stages.bench import process\n"
        "start = process.start_early\n"
        "process.start_early = lambda: (start(), print(process._early.pid, flush=True))\n"
        "sys.argv = ['optkit', 'bench', 'absent.onnx']\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 4
    assert ended(int(done.stdout))


def ended(pid: int) -> bool:
    """Whether a process ends within a few seconds; of one that nobody waits for, a line without words is left."""
    for _ in range(600):
        try:
            if not Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_the_memory_of_a_model_is_without_its_runtimes_packages(monkeypatch, colour_model):
    order = []
    monkeypatch.setattr(worker, "import_packages", order.append)
    monkeypatch.setattr(worker, "pin", lambda threads: [0])

    def memory(pid):
        order.append("memory")
        return {"rss_bytes": 1}

    monkeypatch.setattr("optkit.measure.telemetry.process_memory", memory)
    Worker().open(colour_model(), "null", 1)
    assert order == ["null", "memory"]
