"""Choosing and opening runtimes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from optkit.core.errors import MissingError, UsageError
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Precision, Preprocess
from optkit.runtimes import null, onnxruntime, openvino, tensorrt
from optkit.runtimes.base import SessionOptions, any_batch, describe, open_artifact

OPTIONS = SessionOptions(load_module=lambda artifact: pytest.fail("not a torch artifact"), threads=1)


@pytest.fixture
def onnx_artifact(tmp_path, make_onnx):
    def make(batch=None, **manifest):
        make_onnx(tmp_path / "model.onnx", size=32, batch=batch)
        spec = ModelSpec(
            arch="small", num_classes=5, class_names=tuple("abcde"), preprocess=Preprocess(size=32)
        )
        fields = {"stage": "load", "key": "k", "format": Format.ONNX, "spec": spec, **manifest}
        return Artifact("k", tmp_path, Manifest(**fields))

    return make


def test_the_format_chooses_the_runtime(onnx_artifact):
    session = open_artifact(onnx_artifact(), None, OPTIONS)
    assert session.facts["provider"].endswith("ExecutionProvider")


def test_a_runtime_that_does_not_execute_the_format_is_a_usage_error(onnx_artifact):
    with pytest.raises(UsageError, match="does not execute onnx") as caught:
        open_artifact(onnx_artifact(), "pytorch", OPTIONS)
    assert "onnxruntime" in caught.value.hint


def test_an_engine_that_cannot_run_says_what_it_is_and_what_to_do(onnx_artifact, monkeypatch):
    facts = {
        "flavour": "tensorrt_rtx",
        "version": "1.7.1.116",
        "compute_capability": ["SM89"],
        "size_bytes": 1234,
    }
    artifact = onnx_artifact(format=Format.ENGINE, precision=Precision.INT8, details={"engine": facts})
    monkeypatch.setattr(tensorrt, "unavailable", lambda: "there is no CUDA device here")
    with pytest.raises(MissingError) as caught:
        open_artifact(artifact, None, OPTIONS)
    for fact in ("TensorRT-RTX", "1.7.1.116", "SM89", "int8", "32 px", "bicubic", "mean 0.485"):
        assert fact in caught.value.message
    assert "no CUDA device" in caught.value.why
    assert f"optkit bench {artifact.path / 'model.onnx'}" in caught.value.hint


def test_description_of_a_model(onnx_artifact):
    assert describe(onnx_artifact()).startswith(
        "onnx model; small with 5 classes, precision fp32; input 32 px"
    )


@pytest.mark.parametrize("runtime", [onnxruntime, openvino])
def test_a_fixed_batch_is_stated_and_worked_around_for_answers(onnx_artifact, runtime):
    if reason := runtime.unavailable():
        pytest.skip(reason)
    pixels = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
    whole = runtime.open_session(onnx_artifact(), OPTIONS).run(pixels)
    fixed = runtime.open_session(onnx_artifact(batch=2), OPTIONS)
    assert fixed.facts["fixed_batch"] == 2
    np.testing.assert_allclose(any_batch(fixed)(pixels), whole, atol=1e-5)


def test_openvino_runs_fp32_files_in_fp32(onnx_artifact):
    if reason := openvino.unavailable():
        pytest.skip(reason)
    facts = openvino.open_session(onnx_artifact(), OPTIONS).facts
    assert set(facts["executed_layers"]) == {"fp32"}
    assert facts["precision"] == "fp32"


def test_openvino_does_not_load_its_telemetry():
    if reason := openvino.unavailable():
        pytest.skip(reason)
    code = (
        "import sys; from optkit.runtimes import openvino; openvino._core(); "
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry.')))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_asking_for_runtimes_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from optkit.core import discover\n"
        "for name in discover.names('optkit.runtimes'):\n"
        "    discover.load('optkit.runtimes', name, 'runtime').unavailable()\n"
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt_rtx') "
        "if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_threads_are_passed_on(onnx_artifact):
    assert onnxruntime.open_session(onnx_artifact(), OPTIONS).facts["threads"] == 1
    every = SessionOptions(load_module=OPTIONS.load_module)
    assert onnxruntime.open_session(onnx_artifact(), every).facts["threads"] >= 1


def test_null_answers_zeros_whatever_the_format(onnx_artifact):
    for wanted in null.FORMATS:
        session = null.open_session(onnx_artifact(format=wanted), OPTIONS)
        assert not session.run(np.ones((4, 3, 32, 32), np.float32)).any()
