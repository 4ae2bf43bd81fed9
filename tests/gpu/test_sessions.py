"""Runtimes on a CUDA device: variants, streams, CUDA graphs, timing by the GPU's clock; and what NVML tells."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from optkit.core.types import Artifact, Format
from optkit.measure.telemetry import GPU_COLUMNS, EnergyMeter, Telemetry, gpu_memory, warnings
from optkit.runtimes.base import (
    Profiled,
    Session,
    SessionOptions,
    open_artifact,
    split_runtime,
    why_unavailable,
)
from optkit.runtimes.tensorrt import trtexec
from tests.conftest import MakeOnnx
from tests.contracts.test_runtimes import SmallClassifier
from tests.gpu.test_cuda import artifact, build_here, needs_cuda, why_no_engine
from tests.small_networks import residual_network, textured_images

pytestmark = [pytest.mark.gpu, needs_cuda]
NAMES = [
    "pytorch", "pytorch:eager", "pytorch:compiled", "onnxruntime:cuda", "onnxruntime:tensorrt", "tensorrt"
]  # fmt: skip
TIMED = [name for name in NAMES if name != "onnxruntime:tensorrt"]  # its provider has streams of its own


class Models:
    """A small classifier in every format that this machine executes."""

    def __init__(self, folder: Path, make_onnx: MakeOnnx) -> None:
        self._folder = folder
        model = make_onnx(folder / Format.ONNX.filename, classes=4, size=16)
        self._module = SmallClassifier(model).eval()
        self._sessions: list[Session] = []

    def open(self, name: str, cuda_graph: bool = False) -> Session:
        """A session, or a skipped test."""
        if reason := why_no_engine() if name == "tensorrt" else why_unavailable(name):
            pytest.skip(f"{name}: {reason}")
        wanted = {"pytorch": Format.TORCH, "onnxruntime": Format.ONNX}.get(
            split_runtime(name)[0], Format.ENGINE
        )
        if wanted is Format.ENGINE and not (self._folder / wanted.filename).exists():
            build_here(self._folder)
        options = SessionOptions(lambda _: copy.deepcopy(self._module), threads=1, cuda_graph=cuda_graph)
        self._sessions.append(open_artifact(artifact(self._folder, wanted, 16), name, options))
        return self._sessions[-1]

    def expected(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the network answers on the CPU."""
        logits: NDArray[np.float32] = self._module(torch.from_numpy(pixels)).detach().numpy()
        return logits

    def close(self) -> None:
        for session in self._sessions:
            session.close()


@pytest.fixture
def models(tmp_path: Path, make_onnx: MakeOnnx) -> Iterator[Models]:
    made = Models(tmp_path, make_onnx)
    yield made
    made.close()


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 3, 16, 16), np.float32)


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_variant_answers_as_on_the_cpu(models: Models, name: str, cuda_graph: bool) -> None:
    """Batch sizes change, so that graphs are recorded anew; each batch comes twice, the second time replayed."""
    session = models.open(name, cuda_graph)
    assert session.facts["device"] != "cpu"
    if name in TIMED:
        assert session.facts["cuda_graph"] == cuda_graph
    answers = [(count, seed, session.run(images(count, seed))) for count in (4, 1, 4) for seed in (1, 2)]
    for count, seed, logits in answers:
        expected = models.expected(images(count, seed))
        np.testing.assert_allclose(logits, expected, atol=5e-3 * np.ptp(expected) + 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_streams_in_two_threads_answer_as_one_does(models: Models, name: str) -> None:
    session = models.open(name)
    batches = [images(2, seed) for seed in (1, 2)]
    expected = [session.run(one) for one in batches]
    callers = [session.stream() for _ in batches]

    def work(index: int) -> float:
        answers = [callers[index](batches[index]) for _ in range(50)]
        return float(max(np.abs(answer - expected[index]).max() for answer in answers))

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(work, (0, 1))) < 1e-3


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("name", TIMED)
def test_parts_of_a_run_are_timed_by_the_gpu(models: Models, name: str, cuda_graph: bool) -> None:
    session = models.open(name)
    assert isinstance(session, Profiled)
    times = session.profile(images(4), 20, cuda_graph, clock_ns=time.monotonic_ns)
    assert set(times) == {"h2d", "compute", "d2h", "enqueue"}
    assert all(len(samples) == 20 and min(samples) > 0 for samples in times.values())
    alone = session.profile(images(4), 20, cuda_graph, transfers=False, spin_wait=True)
    assert set(alone) == {"compute"}


@pytest.mark.parametrize("name", ["pytorch", "tensorrt"])
def test_a_graph_is_enqueued_in_less_time(models: Models, name: str) -> None:
    """PyTorch launches a kernel after the other; TensorRT may have so few that nothing is won."""
    session = models.open(name)
    eager, graph = (
        float(np.median(session.profile(images(1), 200, on, clock_ns=time.monotonic_ns)["enqueue"]))
        for on in (False, True)
    )
    assert graph < eager * (1 if name == "pytorch" else 1.5)


@pytest.mark.parametrize("preset", list(trtexec.DEFAULTS))
def test_an_engine_is_timed_as_trtexec_does(models: Models, preset: str) -> None:
    how = trtexec.defaults(preset)
    times = trtexec.profile_like(models.open("tensorrt"), images(1), how, time.monotonic_ns)
    assert set(times) == ({"h2d", "compute", "d2h", "enqueue"} if how.transfers else {"compute", "enqueue"})
    assert len(times["compute"]) >= how.min_runs
    assert min(trtexec.latencies(times)) > 0
    assert all(isinstance(text, str) for text in trtexec.warnings(times))


def test_the_gpu_is_in_the_trace_of_a_run() -> None:
    pytest.importorskip("pynvml", reason="NVML is asked through nvidia-ml-py")
    meter = EnergyMeter()
    left = torch.randn(2048, 2048, device="cuda")
    with Telemetry(interval_s=0.1) as telemetry:
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            left = (left @ left).clamp(-1, 1)
            torch.cuda.synchronize()
    trace = telemetry.trace()
    told = set(trace["columns"]) | set(trace["gaps"])
    assert set(GPU_COLUMNS) <= told
    assert "gpu_mhz" in trace["columns"]
    assert all(isinstance(text, str) for text in warnings(trace))
    assert meter.read().get("nvml", 1.0) > 0, "a second of work takes energy; older GPUs do not count it"
    held, why = gpu_memory(os.getpid())
    assert (held is None) == bool(why)


def test_residual_networks_agree_in_the_cuda_provider(tmp_path: Path) -> None:
    if reason := why_unavailable("onnxruntime:cuda"):
        pytest.skip(reason)
    onnx.save(residual_network(), tmp_path / Format.ONNX.filename)
    model: Artifact = artifact(tmp_path, Format.ONNX, 16)
    options = SessionOptions(lambda _: pytest.fail("not a torch artifact"), threads=1)
    cuda, cpu = (open_artifact(model, f"onnxruntime:{where}", options) for where in ("cuda", "cpu"))
    pixels = textured_images(12, seed=3)
    expected = cpu.run(pixels)
    np.testing.assert_allclose(cuda.run(pixels), expected, atol=1e-2 * np.ptp(expected))
