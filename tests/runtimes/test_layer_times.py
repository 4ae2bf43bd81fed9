"""Times of kernels, as each runtime tells them."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch

from optkit.core import discover
from optkit.core.errors import InputError, MissingError
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Precision, Preprocess
from optkit.graph.qdq import insert_qdq
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.runtimes import onnxruntime, openvino, pytorch
from optkit.runtimes._kernels import WARM_UP, KernelTime, Repeats, layer_medians
from optkit.runtimes._modules import own_times
from optkit.runtimes.base import SessionOptions
from optkit.runtimes.tensorrt import layers as tensorrt_layers
from tests.small_networks import residual_network, textured_images

ON_CPU = [pytest.param(onnxruntime, id="onnxruntime"), pytest.param(openvino, id="openvino")]


def artifact(folder: Path, format: Format) -> Artifact:
    spec = ModelSpec(arch="small", num_classes=4, class_names=tuple("abcd"), preprocess=Preprocess(size=16))
    manifest = Manifest(stage="x", key="k", format=format, spec=spec, precision=Precision.FP32)
    return Artifact("k", folder, manifest)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("network")
    onnx.save(prepare(residual_network()), found / Format.ONNX.filename)
    return found


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("quantised")
    model = prepare(residual_network())
    plan = discover.load("optkit.stages.quantize.placement", "onnxruntime", "target").plan(GraphView(model))
    ranges = dict.fromkeys(plan.observed(), (0.0, 6.0))
    onnx.save(insert_qdq(model, plan, ranges), found / Format.ONNX.filename)
    return found


def repeats(images: int = 2, runs: int = 8) -> Repeats:
    return Repeats(textured_images(images), runs, time.monotonic)


def options(**fields: object) -> SessionOptions:
    return SessionOptions(load_module=lambda _: pytest.fail("no torch module"), threads=1, **fields)


@pytest.mark.parametrize("runtime", ON_CPU)
def test_kernels_and_the_rest_make_a_run(runtime, folder: Path) -> None:
    found = runtime.layer_times(artifact(folder, Format.ONNX), options(), repeats(images=32))
    kinds = [kernel.kind for kernel in found.kernels]
    assert sum("Conv" in kind for kind in kinds) >= 3
    assert {kernel.precision for kernel in found.kernels if "Conv" in kernel.kind} == {"fp32"}
    assert all(kernel.ms >= 0 for kernel in found.kernels)
    assert sum(kernel.ms for kernel in found.kernels) > 0


@pytest.mark.parametrize("runtime", ON_CPU)
def test_int8_kernels_are_told_as_such(runtime, quantised: Path) -> None:
    found = runtime.layer_times(artifact(quantised, Format.ONNX), options(), repeats())
    assert "int8" in {kernel.precision for kernel in found.kernels if "Conv" in kernel.kind}


@pytest.mark.parametrize("runtime", ON_CPU)
def test_a_larger_batch_takes_longer(runtime, folder: Path) -> None:
    small, large = (
        sum(
            kernel.ms
            for kernel in runtime.layer_times(
                artifact(folder, Format.ONNX), options(), repeats(images)
            ).kernels
        )
        for images in (1, 128)
    )
    assert large > 3 * small


@pytest.mark.parametrize("runtime", ON_CPU)
def test_a_batch_that_the_file_does_not_take_is_refused(runtime, tmp_path: Path, make_onnx) -> None:
    make_onnx(tmp_path / Format.ONNX.filename, size=16, batch=4)
    with pytest.raises(InputError, match="refuses") as caught:
        runtime.layer_times(artifact(tmp_path, Format.ONNX), options(), repeats(images=2))
    assert caught.value.hint


def test_a_gpu_provider_is_refused(folder: Path) -> None:
    with pytest.raises(MissingError, match="does not tell"):
        onnxruntime.layer_times(artifact(folder, Format.ONNX), options(variant="cuda"), repeats())


class Clock:
    """Moves on when somebody takes time."""

    now = 0.0

    def seconds(self) -> float:
        return self.now


class Busy(torch.nn.Module):
    """Takes seconds itself, after the modules in it."""

    def __init__(self, clock: Clock, seconds: float, *inner: torch.nn.Module) -> None:
        super().__init__()
        self.clock, self.seconds, self.inner = clock, seconds, torch.nn.Sequential(*inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        self.clock.now += self.seconds
        return x


def test_modules_have_their_own_time(tmp_path: Path) -> None:
    clock = Clock()
    module = Busy(clock, 8.0, Busy(clock, 4.0), Busy(clock, 2.0)).eval()
    found = pytorch.layer_times(
        artifact(tmp_path, Format.TORCH),
        SessionOptions(load_module=lambda _: module, threads=1),
        Repeats(textured_images(1), 3, clock.seconds),
    )
    # In the order in which they end.
    assert {kernel.name: kernel.ms for kernel in found.kernels} == {
        "inner.0.inner": 0, "inner.0": 4000, "inner.1.inner": 0, "inner.1": 2000, "inner": 0, "": 8000
    }  # fmt: skip
    assert found.rest_ms == 0
    kinds = {kernel.origins: kernel.kind for kernel in found.kernels}
    assert kinds[("inner.1",)] == "Busy"
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in module.modules())


def test_a_compiled_network_has_no_layers(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="compiled"):
        pytorch.layer_times(artifact(tmp_path, Format.TORCH), options(variant="compiled"), repeats())


def test_times_within_times() -> None:
    marks = [
        ("a", True, 0),
        ("b", True, 1),
        ("b", False, 4),
        ("b", True, 5),
        ("b", False, 6),
        ("a", False, 9),
    ]
    assert own_times(marks, lambda start, end: end - start) == {"a": 5, "b": 4}


def test_repeats_count_the_runs_after_the_warm_up() -> None:
    clock = iter(range(1000))
    called, noted = [], []
    found = Repeats(textured_images(1), 3, lambda: next(clock)).time(
        lambda: called.append(1), lambda: noted.append(1)
    )
    assert (len(called), len(noted), found) == (WARM_UP + 3, 3, [1000, 1000, 1000])


def test_medians_and_what_is_beside_them() -> None:
    found = layer_medians(
        [10.0, 20.0, 12.0], [{"a": 4.0, "b": 1.0}, {"a": 9.0}, {"a": 5.0, "b": 2.0}],
        lambda name, ms: KernelTime(name, "k", ms),
    )  # fmt: skip
    assert {kernel.name: kernel.ms for kernel in found.kernels} == {"a": 5.0, "b": 1.0}
    assert found.rest_ms == statistics.median([5.0, 11.0, 5.0])


@pytest.mark.parametrize(
    ("name", "kind", "nodes"),
    [
        ("/conv1/Conv", "Layer", ("/conv1/Conv",)),
        ("/conv1/Conv + /act/Relu", "Layer", ("/conv1/Conv", "/act/Relu")),
        (
            "conv1.weight + node_Conv_1.weight.dequantize + node_Conv_1 + node_relu",
            "Layer",
            ("conv1.weight", "node_Conv_1.weight.dequantize", "node_Conv_1", "node_relu"),
        ),
        ("PWN(PWN(/s/Sigmoid), /s/Mul)", "PointWise", ("/s/Sigmoid", "/s/Mul")),
        ("/b/Conv || /a/Conv", "Layer", ("/b/Conv", "/a/Conv")),
        ("Reformatting CopyNode for Input Tensor 0 to /conv1/Conv", "Reformat", ()),
        ("{ForeignNode[/se/ReduceMean.../se/Mul]}", "ForeignNode", ("/se/ReduceMean", "/se/Mul")),
        ("__myl_MulSum_myl0_3", "added by TensorRT", ()),
    ],
)
def test_names_of_tensorrts_layers(name: str, kind: str, nodes: tuple[str, ...]) -> None:
    assert tensorrt_layers.kind(name) == kind
    assert tensorrt_layers.origins(name) == nodes


def test_what_tensorrt_reports_adds_up_by_layer() -> None:
    class IProfiler:
        """TensorRT's base class."""

    recorder = tensorrt_layers.layer_recorder(SimpleNamespace(IProfiler=IProfiler))
    for name, ms in (("a", 1.0), ("b", 2.0), ("a", 0.5)):
        recorder.report_layer_time(name, ms)
    assert recorder.times == {"a": 1.5, "b": 2.0}
