"""Choosing and opening runtimes."""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from optkit.core import machine
from optkit.core.errors import InputError, MissingError, UsageError
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Precision, Preprocess
from optkit.runtimes import null, onnxruntime, openvino, pytorch, tensorrt
from optkit.runtimes.base import (
    SessionOptions,
    any_batch,
    check_runtime,
    computes,
    describe,
    open_artifact,
    runtime_names,
    runtimes_for,
    split_runtime,
    why_unavailable,
)

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


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("openvino:thruput", "Did you mean 'throughput'?"),
        ("onnxruntime:", "Known: auto, cpu"),
        ("null:fast", "It has no variants: null"),
        ("openvno:latency", "Did you mean 'openvino'?"),
    ],
)
def test_a_misspelt_runtime_or_variant_is_a_usage_error(onnx_artifact, name, hint):
    with pytest.raises(UsageError) as caught:
        check_runtime(name)
    assert hint in caught.value.hint
    with pytest.raises(UsageError):
        open_artifact(onnx_artifact(), name, OPTIONS)


def test_names_of_runtimes_are_taken_apart():
    assert split_runtime("openvino:throughput") == ("openvino", "throughput")
    assert split_runtime("openvino") == ("openvino", "")
    assert {"pytorch:compiled", "onnxruntime:cuda", "null", "tensorrt"} <= set(runtime_names())
    for name in [*runtime_names(), "pytorch", "openvino"]:
        check_runtime(name)


@pytest.mark.parametrize("name", ["pytorch", "pytorch:channels_last", "pytorch:eager"])
def test_pytorch_runs_in_the_layout_of_its_variant(onnx_artifact, name):
    seen = []

    class Network(torch.nn.Module):
        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return x.mean((2, 3))

    options = SessionOptions(load_module=lambda _: Network(), threads=1)
    session = open_artifact(onnx_artifact(format=Format.TORCH), name, options)
    session.run(np.zeros((2, 3, 8, 8), np.float32))
    expected = "contiguous_format" if name == "pytorch:eager" else "channels_last"
    assert session.facts["memory_format"] == expected
    assert seen == [expected == "channels_last"]


@pytest.mark.skipif(bool(machine.gpus()), reason="on a GPU it makes no C++ code")
def test_compiling_needs_a_compiler(onnx_artifact, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(MissingError) as caught:
        open_artifact(onnx_artifact(format=Format.TORCH), "pytorch:compiled", OPTIONS)
    assert "g++" in caught.value.why
    assert why_unavailable("pytorch") is None


def test_what_cannot_be_compiled_says_why(onnx_artifact):
    class Network(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else x.mean((2, 3))

    options = SessionOptions(load_module=lambda _: Network(), threads=1)
    session = pytorch.open_session(onnx_artifact(format=Format.TORCH), replace(options, variant="compiled"))
    with pytest.raises(MissingError, match="compile") as caught:
        session.run(np.ones((1, 3, 8, 8), np.float32))
    assert caught.value.why


def test_answers_use_batch_sizes_that_are_compiled_already():
    class Compiled:
        def __init__(self):
            self.facts = {"compiled_batches": [8, 4]}

        def run(self, pixels):
            if len(pixels) not in self.facts["compiled_batches"]:
                self.facts["compiled_batches"].append(len(pixels))
            return pixels.mean((2, 3))

    session, pixels = Compiled(), np.random.default_rng(0).standard_normal((9, 3, 4, 4), np.float32)
    for batch in (3, 4, 7, 9):
        np.testing.assert_array_equal(any_batch(session)(pixels[:batch]), pixels[:batch].mean((2, 3)))
    assert session.facts["compiled_batches"] == [8, 4, 9]


def test_openvino_divides_its_threads_for_throughput_alone(onnx_artifact):
    if reason := openvino.unavailable():
        pytest.skip(reason)
    options = SessionOptions(load_module=OPTIONS.load_module, threads=2)
    facts = {
        name: open_artifact(onnx_artifact(), name, options).facts
        for name in ("openvino", "openvino:latency", "openvino:throughput")
    }
    assert [found["hint"] for found in facts.values()] == ["latency", "latency", "throughput"]
    assert facts["openvino"]["streams"] == 1
    if machine.facts()["cores"] > 1:
        assert facts["openvino:throughput"]["streams"] > 1


def test_a_provider_is_there_when_the_package_has_its_library(tmp_path, monkeypatch):
    (tmp_path / "capi").mkdir()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    assert "pip install onnxruntime-openvino" in onnxruntime.unavailable("openvino")
    assert "pip install onnxruntime-gpu" in onnxruntime.unavailable("tensorrt")
    for name in ("openvino.so", "tensorrt.so", "cuda.so"):
        (tmp_path / "capi" / f"libonnxruntime_providers_{name}").touch()
    assert onnxruntime.unavailable("openvino") is None
    monkeypatch.setattr(machine, "gpus", list)
    assert "no CUDA device" in onnxruntime.unavailable("cuda")
    monkeypatch.setattr(machine, "gpus", lambda: [{"name": "RTX 4090"}])
    assert onnxruntime.unavailable("cuda") is None
    assert onnxruntime.unavailable("tensorrt") is None


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("variant", ["cuda", "tensorrt", "openvino"])
def test_a_provider_that_is_silently_replaced_is_missing(onnx_artifact, capfd, variant):
    if onnxruntime.unavailable(variant) is None:
        pytest.skip("this provider can be taken here")
    with pytest.raises(MissingError, match=onnxruntime.PROVIDERS[variant]) as caught:
        onnxruntime.open_session(onnx_artifact(), replace(OPTIONS, variant=variant))
    assert "CPUExecutionProvider" in caught.value.why
    assert capfd.readouterr().out == ""


def test_the_cpu_provider_can_be_asked_for(onnx_artifact, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: pytest.fail("not asked for all"))
    session = open_artifact(onnx_artifact(), "onnxruntime:cpu", OPTIONS)
    assert session.facts["provider"] == onnxruntime.CPU


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "openvino:throughput"])
def test_no_stream_of_a_closed_session(onnx_artifact, name):
    if reason := why_unavailable(name):
        pytest.skip(reason)
    session = open_artifact(onnx_artifact(), name, OPTIONS)
    session.close()
    with pytest.raises(ValueError, match="closed"):
        session.stream()(np.zeros((1, 3, 32, 32), np.float32))


def test_an_engine_that_cannot_run_says_what_it_is_and_what_to_do(onnx_artifact, monkeypatch):
    facts = {
        "flavour": "tensorrt_rtx",
        "version": "1.7.1.116",
        "compute_capability": ["SM89"],
        "size_bytes": 1234,
    }
    artifact = onnx_artifact(format=Format.ENGINE, precision=Precision.INT8, details={"engine": facts})
    monkeypatch.setattr(tensorrt, "unavailable", lambda _="": "there is no CUDA device here")
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


@pytest.mark.skipif(platform.machine() not in onnxruntime.X86, reason="on x86 it has no FP16 kernels")
def test_onnxruntime_says_that_it_runs_fp16_files_in_fp32(onnx_artifact):
    facts = onnxruntime.open_session(onnx_artifact(precision=Precision.FP16), OPTIONS).facts
    if facts["device"] != "cpu":
        pytest.skip("a GPU computes in FP16")
    assert facts["precision"] == "fp32"
    assert (
        onnxruntime.open_session(onnx_artifact(precision=Precision.INT8), OPTIONS).facts["precision"]
        == "int8"
    )


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize(("providers", "has_hint"), [([], True), (["CUDAExecutionProvider"], False)])
def test_what_a_cpu_lacks_is_hinted_at_where_the_cpu_is_all(onnx_artifact, monkeypatch, providers, has_hint):
    offered = [*providers, "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: offered)
    artifact = onnx_artifact(precision=Precision.BF16)
    artifact.file.write_bytes(b"junk")
    with pytest.raises(InputError, match="refuses") as caught:
        onnxruntime.open_session(artifact, OPTIONS)
    assert ("BF16" in caught.value.hint) == has_hint


def test_openvino_does_not_load_its_telemetry():
    if reason := openvino.unavailable():
        pytest.skip(reason)
    code = (
        "import sys; from optkit.runtimes import openvino; openvino._core(); "
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry.')))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="signals of POSIX")
def test_a_signal_is_survived_after_openvino_sessions_were_closed_in_the_order_of_opening(onnx_artifact):
    if reason := openvino.unavailable():
        pytest.skip(reason)
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from optkit.core.types import Artifact, Manifest
        from optkit.runtimes import openvino
        from optkit.runtimes.base import SessionOptions
        manifest = Manifest.model_validate_json({onnx_artifact().manifest.model_dump_json()!r})
        artifact = Artifact("k", Path({str(onnx_artifact().path)!r}), manifest)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        sessions = [openvino.open_session(artifact, SessionOptions(None, threads=1)) for _ in range(2)]
        while sessions:
            del sessions[0]
        os.kill(os.getpid(), signal.SIGCHLD)
    """
    assert subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], check=False).returncode == 0


def test_asking_for_runtimes_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from optkit.runtimes.base import check_runtime, runtime_names, why_unavailable\n"
        "for name in runtime_names():\n"
        "    check_runtime(name)\n"
        "    why_unavailable(name)\n"
        "print([name for name in ('numpy', 'torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt_rtx') "
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


def test_a_format_has_those_runtimes_that_execute_it_or_its_default_one() -> None:
    wanted = ["pytorch", "openvino:throughput", "null", "onnxruntime"]
    assert runtimes_for(Format.ONNX, wanted) == ["openvino:throughput", "null", "onnxruntime"]
    assert runtimes_for(Format.TORCH, ["onnxruntime"]) == ["pytorch"]
    assert [one for one in wanted if not computes(one)] == ["null"]
