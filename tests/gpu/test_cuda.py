"""What needs a CUDA device: training, the runtimes, and engines for this machine's own GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from optkit.core import machine
from optkit.core.progress import SilentReporter
from optkit.core.types import Artifact, Context, Format, Manifest, ModelSpec, Precision, Preprocess
from optkit.measure.parity import compare_logits
from optkit.measure.roofline import measure_ceilings
from optkit.models.checkpoint import load_module
from optkit.runtimes import onnxruntime, pytorch, tensorrt
from optkit.runtimes.base import SessionOptions
from optkit.stages.bench.config import Config as BenchConfig
from optkit.stages.bench.layers import layer_costs
from optkit.stages.bench.stage import run as bench
from optkit.stages.export.config import RTX_TARGETS
from optkit.stages.quantize.config import Config as QuantizeConfig
from optkit.stages.quantize.stage import run as quantize
from tests.conftest import small_classifier
from tests.small_networks import residual_network, textured_images
from tests.stages.support import TINY, run_steps

OPTIONS = SessionOptions(load_module=load_module, threads=1)
MAX_BATCH = 8


def why_no_engine() -> str | None:
    """Why no engine can be built and executed here."""
    if reason := tensorrt.unavailable():
        return reason
    found, target = machine.tensorrt(), machine.compute_capability()
    if found and found[0] == "tensorrt_rtx" and target not in RTX_TARGETS:
        return f"TensorRT-RTX does not support this GPU, {target}: pip install 'optkit[gpu]'"
    return None if torch.cuda.is_available() else "this PyTorch has no CUDA"


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")
needs_cuda_provider = pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers() or not machine.gpus(),
    reason="ONNX Runtime's CUDA provider needs onnxruntime-gpu and a CUDA device",
)
needs_engine = pytest.mark.skipif(why_no_engine() is not None, reason=f"no engine: {why_no_engine()}")
pytestmark = pytest.mark.gpu


def on_cpu(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What ONNX Runtime's CPU provider answers."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    return logits


def artifact(folder: Path, format: Format, size: int, precision: Precision = Precision.FP32) -> Artifact:
    """The file in `folder`, a classifier of four classes."""
    spec = ModelSpec(arch="small", num_classes=4, class_names=tuple("abcd"), preprocess=Preprocess(size=size))
    manifest = Manifest(stage="export", key=format.value, format=format, spec=spec, precision=precision)
    return Artifact(format.value, folder, manifest)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A tiny network, trained for one epoch where Fabric finds the GPU."""
    torch.cuda.reset_peak_memory_stats()
    steps = {"m": {"stage": "finetune", **TINY, "train": {"epochs": 1}}}
    return run_steps(tmp_path_factory.mktemp("trained"), steps)["m"]


@needs_cuda
def test_training_runs_on_the_gpu_and_leaves_its_result_on_the_cpu(trained: Artifact) -> None:
    assert torch.cuda.max_memory_allocated() > 0, "nothing was computed on the GPU"
    (row,) = trained.manifest.history
    assert np.isfinite(row["loss"])
    assert trained.manifest.metrics["n"] == 80
    tensors = load_module(trained).state_dict().values()
    assert all(tensor.device.type == "cpu" and tensor.isfinite().all() for tensor in tensors)


@needs_cuda
def test_pytorch_answers_on_the_gpu_as_on_the_cpu(trained: Artifact) -> None:
    pixels = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
    with torch.inference_mode():
        expected = load_module(trained).eval()(torch.from_numpy(pixels)).numpy()
    session = pytorch.open_session(trained, OPTIONS)
    assert session.facts["device"] == torch.cuda.get_device_name()
    logits = session.run(pixels)
    session.close()
    assert np.ptp(expected) > 1e-3
    # TF32, which cuDNN may use for convolutions, keeps ten bits.
    np.testing.assert_allclose(logits, expected, atol=2e-2 * np.ptp(expected))


@needs_cuda_provider
def test_onnxruntime_answers_with_its_cuda_provider_as_on_the_cpu(tmp_path: Path) -> None:
    small_classifier(tmp_path / Format.ONNX.filename, classes=4)
    pixels = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
    session = onnxruntime.open_session(artifact(tmp_path, Format.ONNX, 32), OPTIONS)
    assert session.facts["provider"] == "CUDAExecutionProvider"
    assert session.facts["device"] == "cuda"
    expected = on_cpu(tmp_path / Format.ONNX.filename, pixels)
    np.testing.assert_allclose(session.run(pixels), expected, atol=5e-3 * np.ptp(expected))


def build_here(folder: Path) -> Path:
    """An engine for this machine's own GPU from the ONNX file in `folder`."""
    path = folder / Format.ENGINE.filename
    target = machine.compute_capability() or "portable"
    tensorrt.build_engine(folder / Format.ONNX.filename, path, target, MAX_BATCH, 16)
    return path


@pytest.fixture(params=[Precision.FP32, Precision.INT8], scope="module")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A small residual network as an engine of this machine, with its ONNX file beside it."""
    folder = tmp_path_factory.mktemp("engine")
    onnx.save(residual_network(), folder / Format.ONNX.filename)
    if request.param is Precision.INT8:
        source, folder = artifact(folder, Format.ONNX, 16), tmp_path_factory.mktemp("int8")
        config = QuantizeConfig(data="synthetic", calibration_images=64, target="tensorrt")
        quantize(config, {"model": {"m": source}}, Context(folder, SilentReporter()))
    build_here(folder)
    return artifact(folder, Format.ENGINE, 16, request.param)


@needs_engine
def test_an_engine_of_this_gpu_answers_as_its_onnx_file_does(engine: Artifact) -> None:
    pixels = textured_images(40, seed=5)
    expected = on_cpu(engine.path / Format.ONNX.filename, pixels)
    session = tensorrt.open_session(engine, OPTIONS)
    assert session.facts["gpu"] == torch.cuda.get_device_name()
    found = compare_logits(expected, session.run(pixels))
    session.close()
    # INT8: both round to the same grid, and a value on the edge between two codes may go either way.
    assert found.sqnr_db > (20 if engine.precision is Precision.INT8 else 45)
    assert found.agreement >= 0.9


@needs_engine
def test_an_engine_file_tells_its_shape(engine: Artifact) -> None:
    assert tensorrt.classifier_shape(engine.file) == (16, 4)


@needs_engine
def test_bench_measures_an_engine_and_its_parts(engine: Artifact, tmp_path: Path) -> None:
    config = BenchConfig(seconds=0.2, batch_sizes=(1, 4))
    output = bench(config, {"models": {"e": engine}}, Context(tmp_path, SilentReporter()))
    rows: list[dict[str, Any]] = output.details["rows"]
    assert [row["batch"] for row in rows] == [1, 4]
    for row in rows:
        assert row["runtime"] == "tensorrt"
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
        assert row["facts"]["gpu"] == torch.cuda.get_device_name()
    parts = {
        (found.name, found.conditions["batch"], found.conditions["cuda_graph"]): found.samples
        for found in output.measurements
        if "cuda_graph" in found.conditions
    }
    names = ("h2d_ms", "compute_ms", "d2h_ms")
    assert set(parts) == {(name, batch, on) for name in names for batch in (1, 4) for on in (False, True)}
    assert all(samples and min(samples) > 0 for samples in parts.values())


@needs_cuda
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_training_learns_on_a_gpu(precision: str, tmp_path: Path) -> None:
    """Head on cached features, every layer after it, moving average, and the resume of a finished training."""
    train = {
        "phases": [{"unfreeze": "head", "epochs": 2}, {"unfreeze": "all", "epochs": 6, "lr": 0.004}],
        "precision": precision,
        "batch_size": 16,
        "ema": 0.9,
    }
    made = run_steps(tmp_path, {"ft": {"stage": "finetune", **TINY, "train": train, "augment": False}})["ft"]
    assert made.manifest.metrics["top1"] > 0.5, "four classes: chance is 0.25"
    losses = [row["loss"] for row in made.manifest.history if row["phase"] == "blocks"]
    assert losses[-1] < losses[0]


@needs_cuda
def test_quantisation_aware_training_runs_on_the_gpu_and_its_file_on_the_cpu(tmp_path: Path) -> None:
    onnx.save(residual_network(), tmp_path / Format.ONNX.filename)
    folder = tmp_path / "int8"
    folder.mkdir()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    config = QuantizeConfig(
        data="synthetic", calibration_images=64, rungs=("qat",), check_images=16, allow_slower=True
    )
    source = artifact(tmp_path, Format.ONNX, 16)
    output = quantize(config, {"model": {"m": source}}, Context(folder, SilentReporter()))
    assert torch.cuda.max_memory_allocated() > before, "nothing was computed on the GPU"
    start, trained = output.details["quantization"]["ladder"]
    assert "steps on" in trained["note"]
    assert trained["sqnr_db"] > start["sqnr_db"] - 1, "a low learning rate spoils nothing"
    pixels = textured_images(16)
    expected, found = (on_cpu(one / Format.ONNX.filename, pixels) for one in (tmp_path, folder))
    assert compare_logits(expected, found).sqnr_db > 15


@needs_cuda
def test_pytorch_tells_the_times_of_modules_by_the_gpus_clock(trained: Artifact) -> None:
    found = layer_costs(trained, "pytorch", OPTIONS, 4, None, 5)
    assert found["without_time"] == []
    assert 0 < found["counted_ms"] < found["total_ms"]


@needs_engine
def test_an_engines_layers_are_those_of_its_onnx_file(engine: Artifact) -> None:
    found = layer_costs(engine, "tensorrt", OPTIONS, 4, None, 5)
    assert found["counted_ms"] > 0
    assert any(row["macs"] for row in found["layers"])


@needs_cuda
def test_the_ceilings_of_a_gpu() -> None:
    found = measure_ceilings(("fp32", "fp16", "int8"), 1, 1.0, "cuda")
    assert found.macs_per_s["fp16"] > 1e12
    assert found.bytes_per_s > 1e11
