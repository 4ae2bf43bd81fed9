from __future__ import annotations

import numpy as np
import onnx
import pytest

from optkit.core.types import Context, ModelSpec, Preprocess
from optkit.graph.qdq_prepare import prepare
from optkit.stages.quantize import speed
from optkit.stages.quantize.speed import compare_speed, why_slower
from tests.small_networks import Builder, residual_network

SPEC = ModelSpec(arch="small", num_classes=4, class_names=tuple("abcd"), preprocess=Preprocess(size=16))
FIELDS = {"runtime", "fp32_runtime", "fp32_ms", "int8_ms", "ratio", "interval", "verdict"} | {
    *("batch", "threads", "device")
}


def large_network() -> onnx.ModelProto:
    """A hundred times the work of `residual_network`."""
    b = Builder()
    x = b.conv("input", 3, 128)
    for _ in range(3):
        x = b.op("Relu", b.conv(x, 128, 128))
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    weight = b.rng.standard_normal((4, 128)).astype(np.float32)
    return prepare(b.model(b.op("Gemm", x, b.constant(weight), transB=1), 4, None, 20))


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("is_slower", [True, False])
def test_two_files_of_very_different_size_are_told_apart(
    target: str, is_slower: bool, context: Context
) -> None:
    """And the same two the other way round; how sure it is depends on what else the machine does."""
    pytest.importorskip(target, reason=f"{target} is not installed")
    small, large = prepare(residual_network()), large_network()
    before, after = (small, large) if is_slower else (large, small)
    found = compare_speed(before, after, SPEC, target, context.reporter)
    assert found is not None
    assert found.keys() == FIELDS
    assert found["runtime"] == target
    assert found["threads"] >= 1
    low, high = found["interval"]
    assert low <= found["ratio"] <= high
    assert (found["int8_ms"] > found["fp32_ms"]) is is_slower
    assert found["verdict"] == ("faster" if high < 1 else "slower" if low > 1 else "cannot tell")
    assert bool(why_slower(found)) is (found["verdict"] == "slower")


@pytest.mark.parametrize(
    ("ratios", "verdict"), [((0.9, 1.1), "cannot tell"), ((1.1, 1.2), "slower"), ((0.8, 0.9), "faster")]
)
def test_the_interval_decides(
    ratios: tuple[float, float], verdict: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the rounds with either ratio; the interval is that of Student's t for eight rounds."""
    rounds = [(2.0, 2.0 * ratio) for ratio in ratios for _ in range(4)]
    monkeypatch.setattr(speed, "RUNTIMES", ("onnxruntime",))
    monkeypatch.setattr(speed, "time_rounds", lambda *_: np.array(rounds))
    model = prepare(residual_network())
    found = compare_speed(model, model, SPEC, "onnxruntime", context.reporter)
    logs = np.log([after / before for before, after in rounds])
    half = 2.365 * logs.std(ddof=1) / np.sqrt(len(logs))
    assert found["verdict"] == verdict
    assert found["ratio"] == pytest.approx(np.exp(logs.mean()), abs=1e-3)
    assert found["interval"] == pytest.approx(np.exp([logs.mean() - half, logs.mean() + half]), abs=2e-3)
    assert bool(why_slower(found)) is (verdict == "slower")


def test_a_slower_file_is_told_with_its_figures(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "RUNTIMES", ("onnxruntime",))
    monkeypatch.setattr(speed, "time_rounds", lambda *_: np.array([(2.0, 3.0), (2.0, 3.2), (2.1, 3.1)]))
    model = prepare(residual_network())
    told = why_slower(compare_speed(model, model, SPEC, "onnxruntime", context.reporter))
    assert "SLOWER THAN FP32 HERE: 1.52 times the latency of FP32 in onnxruntime" in told
    assert "INT8 takes 3.1 ms in onnxruntime, FP32 2 ms, at batch 1 with" in told
    assert why_slower(None) == ""


def test_a_fixed_batch_is_timed_as_it_is(context: Context) -> None:
    model = prepare(residual_network(batch=4))
    found = compare_speed(model, model, SPEC, "onnxruntime", context.reporter)
    assert (found["batch"], found["device"]) == (4, "cpu")
    assert found["fp32_ms"] > 0


def test_the_fastest_fp32_counts(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """INT8 beats FP32 in its own runtime, and FP32 elsewhere beats both."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    monkeypatch.setattr(speed, "time_rounds", lambda *_: np.array([[1.0, 3.0, 2.0], [1.0, 3.0, 2.1]]))
    model = prepare(residual_network())
    found = compare_speed(model, model, SPEC, "openvino", context.reporter)
    assert (found["runtime"], found["fp32_runtime"]) == ("openvino", "onnxruntime")
    assert (found["fp32_ms"], found["int8_ms"], found["verdict"]) == (1.0, 2.05, "slower")


def test_a_file_that_the_runtime_refuses_loses_nothing(context: Context) -> None:
    model, broken = prepare(residual_network()), prepare(residual_network())
    broken.graph.initializer[0].dims[0] += 1
    broken.graph.initializer[0].raw_data += b"\0" * len(broken.graph.initializer[0].raw_data)
    assert compare_speed(model, broken, SPEC, "onnxruntime", context.reporter) is None
    assert "Not timed" in context.reporter.warnings[-1]


def test_an_engine_cannot_be_timed_without_its_gpu(context: Context) -> None:
    model = prepare(residual_network())
    assert compare_speed(model, model, SPEC, "tensorrt", context.reporter) is None
