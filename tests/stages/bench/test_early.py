"""The process that is started before the command is read in full."""

from __future__ import annotations

import subprocess
import sys

import pytest

from optkit.core.types import Format
from optkit.stages.bench import early, process
from tests.cli.support import optkit


@pytest.fixture
def started(monkeypatch):
    """The runtimes for which a process was started, none of them for real."""
    names = []
    monkeypatch.setattr(early, "start_early", names.append)
    return names


@pytest.mark.parametrize(
    ("arguments", "runtimes"),
    [
        (["bench", "model.onnx"], ["onnxruntime"]),
        (["bench", "model.safetensors", "model.onnx"], ["pytorch"]),
        (["gate", "--max-drop", "0.5", "onnx", "model.onnx"], ["onnxruntime"]),
        (["bench", "model.onnx", "--runtimes", "openvino:throughput,onnxruntime"], ["openvino:throughput"]),
        (["bench", "model.onnx", "--runtimes", "onnxrt"], []),
        (["bench", "model.onnx", "--runtimes", "openvino:fast"], []),
        (["bench", "model.onnx", "--runtimes"], ["onnxruntime"]),
        (["bench", "model.onnx", "--help"], []),
        (["bench", "absent.onnx", "--runtimes", "onnxruntime"], []),
    ],
)
def test_the_runtime_is_told_by_the_words_of_the_command(tmp_path, monkeypatch, started, arguments, runtimes):
    monkeypatch.chdir(tmp_path)
    for name in ("model.onnx", "model.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / Format.ONNX.filename).touch()
    early.begin(arguments)
    assert started == runtimes


def test_the_command_takes_the_process_that_was_started(tmp_path, monkeypatch, colour_model):
    monkeypatch.chdir(tmp_path)
    pids = []
    start_early = early.start_early

    def start(runtime):
        start_early(runtime)
        pids.append(process._ready[runtime].pid)

    monkeypatch.setattr(early, "start_early", start)
    opened = []
    post = process.Process.post

    def watched(self, command, *arguments):
        if command == "open":
            opened.append(self.pid)
        post(self, command, *arguments)

    monkeypatch.setattr(process.Process, "post", watched)
    done = optkit("bench", str(colour_model().file), "--seconds", "0.05", "--repeats", "1", "--json")
    assert done.code == 0, done.err
    assert opened == pids
    assert process._ready == {}


def test_one_that_is_not_needed_ends():
    process.start_early("null")
    unneeded = process._ready["null"]
    process.start_early("null")
    assert unneeded._process.poll() is not None
    assert process._ready["null"].pid != unneeded.pid
    process.end_early()
    assert process._ready == {}


def test_the_packages_of_a_runtime_are_imported():
    code = (
        "import sys\n"
        "from optkit.runtimes.base import import_packages\n"
        "before = 'onnxruntime' in sys.modules\n"
        "import_packages('onnxruntime:cpu')\n"
        "print(before, 'onnxruntime' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "True"]
