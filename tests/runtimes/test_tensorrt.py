from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from optkit.core import discover, machine
from optkit.core.errors import InputError, MissingError, UsageError
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Preprocess
from optkit.runtimes import tensorrt
from optkit.runtimes.base import SessionOptions
from optkit.stages.export.config import RTX_TARGETS

MakeOnnx = Callable[..., onnx.ModelProto]
needs_rtx = pytest.mark.skipif(
    (machine.tensorrt() or ("",))[0] != "tensorrt_rtx", reason="tensorrt_rtx is not what is installed"
)
needs_gpu = pytest.mark.skipif(
    tensorrt.unavailable() is not None, reason=f"TensorRT cannot run: {tensorrt.unavailable()}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensorrt")


def _build(path: Path, target: str, max_batch: int = 4) -> dict[str, object]:
    return tensorrt.build_engine(path.with_suffix(".onnx"), path, target, max_batch, 32)


@needs_rtx
@pytest.mark.parametrize("target", ["SM89", "SM120", "SM80"])
def test_an_engine_says_what_it_is_for(make_onnx: MakeOnnx, tmp_path: Path, target: str) -> None:
    make_onnx(tmp_path / "a.onnx")
    facts = _build(tmp_path / "a.plan", target)
    assert facts["flavour"] == "tensorrt_rtx"
    assert facts["version"] == machine.version("tensorrt-rtx")
    assert facts["compute_capability"] == [target]
    assert facts["size_bytes"] == (tmp_path / "a.plan").stat().st_size > 10_000
    assert facts["max_batch"] == 4
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.onnx", "a.plan"]
    described = tensorrt.describe(tmp_path / "a.plan")
    assert described.items() <= facts.items()
    assert target in tensorrt.summary(described)


@needs_rtx
def test_turing_is_built_when_asked_for(make_onnx: MakeOnnx, tmp_path: Path) -> None:
    make_onnx(tmp_path / "a.onnx", head="none")
    assert _build(tmp_path / "a.plan", "SM75")["compute_capability"] == ["SM75"]


@needs_rtx
def test_what_cannot_be_built_says_why_and_writes_nothing(make_onnx: MakeOnnx, tmp_path: Path) -> None:
    make_onnx(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="cannot build") as caught:
        _build(tmp_path / "a.plan", "SM75")
    assert "FP32 GEMM is not supported" in caught.value.why
    with pytest.raises(UsageError, match="SM90") as unknown:
        _build(tmp_path / "a.plan", "SM90")
    assert "SM89" in unknown.value.hint
    assert not (tmp_path / "a.plan").exists()


@needs_rtx
def test_an_operator_that_the_parser_refuses_is_named(make_onnx: MakeOnnx, tmp_path: Path) -> None:
    model = make_onnx()
    (node,) = [node for node in model.graph.node if node.op_type == "Relu"]
    node.op_type, node.domain = "Quux", "made.up"
    model.opset_import.add(domain="made.up", version=1)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(InputError, match="refuses") as caught:
        _build(tmp_path / "a.plan", "SM89")
    assert "Quux 'relu'" in caught.value.why


@needs_rtx
def test_open_sizes_are_closed_and_a_fixed_batch_stays(make_onnx: MakeOnnx, tmp_path: Path) -> None:
    make_onnx(tmp_path / "open.onnx", size=None)
    assert _build(tmp_path / "open.plan", "SM89")["max_batch"] == 4
    make_onnx(tmp_path / "fixed.onnx", batch=3)
    assert _build(tmp_path / "fixed.plan", "SM89")["max_batch"] == 3


@needs_rtx
def test_building_prints_nothing(
    make_onnx: MakeOnnx, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_onnx(tmp_path / "a.onnx")
    _build(tmp_path / "a.plan", "portable")
    assert capfd.readouterr() == ("", "")


def test_a_header_is_read_without_tensorrt(tmp_path: Path) -> None:
    header = bytearray(64)
    header[:4], header[24:28] = b"ftrt", bytes((10, 13, 3, 9))
    (tmp_path / "e.plan").write_bytes(bytes(header))
    facts = tensorrt.describe(tmp_path / "e.plan")
    assert facts == {
        "flavour": "tensorrt", "version": "10.13.3.9", "compute_capability": None, "size_bytes": 64
    }  # fmt: skip
    assert tensorrt.summary(facts) == "TensorRT 10.13.3.9 engine, 64 bytes"


@pytest.mark.parametrize("content", [b"", b"ftrt", b"this is a text file, and not an engine\n" * 9])
def test_what_is_no_engine_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "e.plan").write_bytes(content)
    with pytest.raises(InputError, match="is not a TensorRT engine") as caught:
        tensorrt.describe(tmp_path / "e.plan")
    assert caught.value.why
    assert caught.value.hint


@needs_rtx
def test_a_truncated_engine_is_refused(make_onnx: MakeOnnx, tmp_path: Path) -> None:
    make_onnx(tmp_path / "a.onnx")
    _build(tmp_path / "a.plan", "SM89")
    (tmp_path / "b.plan").write_bytes((tmp_path / "a.plan").read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged"):
        tensorrt.describe(tmp_path / "b.plan")


def test_unavailable_says_which_part_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "tensorrt", lambda: None)
    assert "optkit[rtx]" in (tensorrt.unavailable() or "")
    monkeypatch.setattr(machine, "tensorrt", lambda: ("tensorrt_rtx", "1.7"))
    monkeypatch.setattr(machine, "gpus", list)
    assert "no CUDA device" in (tensorrt.unavailable() or "")
    monkeypatch.setattr(machine, "gpus", lambda: [{"name": "RTX 4090"}])
    assert tensorrt.unavailable() is None


def _artifact(folder: Path) -> Artifact:
    names = tuple("abcde")
    spec = ModelSpec(arch="onnx", num_classes=5, class_names=names, preprocess=Preprocess(size=32))
    return Artifact("k", folder, Manifest(stage="test", key="k", format=Format.ENGINE, spec=spec))


def _no_module(_artifact: Artifact) -> None:
    raise AssertionError("an engine needs no torch module")


@needs_rtx
@pytest.mark.skipif(bool(machine.gpus()), reason="there is a GPU")
def test_a_session_without_a_gpu_says_what_is_missing(make_onnx: MakeOnnx, tmp_path: Path) -> None:
    make_onnx(tmp_path / "engine.onnx")
    _build(tmp_path / "engine.plan", "SM89")
    with pytest.raises(MissingError, match="cannot run here"):
        tensorrt.open_session(_artifact(tmp_path), SessionOptions(_no_module))


@pytest.fixture
def engine(make_onnx: MakeOnnx, tmp_path: Path) -> Artifact:
    flavour, target = (machine.tensorrt() or ("",))[0], machine.compute_capability() or "portable"
    if flavour == "tensorrt_rtx" and target not in RTX_TARGETS:
        pytest.skip(f"TensorRT-RTX does not support this GPU, {target}")
    make_onnx(tmp_path / "engine.onnx")
    _build(tmp_path / "engine.plan", target)
    return _artifact(tmp_path)


@pytest.fixture
def session(engine: Artifact) -> Iterator[tensorrt.EngineSession]:
    opened = tensorrt.open_session(engine, SessionOptions(_no_module))
    yield opened
    opened.close()


def _images(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).standard_normal((count, 3, 32, 32)).astype(np.float32)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("count", [1, 2, 4, 11])
def test_the_engine_answers_as_the_graph_does(
    session: tensorrt.EngineSession, make_onnx: MakeOnnx, count: int
) -> None:
    (expected,) = ReferenceEvaluator(make_onnx()).run(None, {"input": _images(count)})
    logits = session.run(_images(count))
    assert logits.dtype == np.float32
    # TF32, which TensorRT may use for float32 graphs, keeps ten bits.
    np.testing.assert_allclose(logits, expected, atol=2e-3 * np.ptp(expected))


@pytest.mark.gpu
@needs_gpu
def test_equal_images_in_a_batch_get_equal_logits(session: tensorrt.EngineSession) -> None:
    logits = session.run(np.repeat(_images(1), 4, axis=0))
    np.testing.assert_array_equal(logits, np.repeat(logits[:1], 4, axis=0))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_profile_times_copies_and_compute_apart(session: tensorrt.EngineSession, cuda_graph: bool) -> None:
    times = session.profile(_images(4), 20, cuda_graph, clock_ns=time.monotonic_ns)
    assert set(times) == {"h2d", "compute", "d2h", "enqueue"}
    assert all(len(samples) == 20 and min(samples) > 0 for samples in times.values())


@pytest.mark.gpu
@needs_gpu
def test_a_cuda_graph_computes_the_same(engine: Artifact, session: tensorrt.EngineSession) -> None:
    recorded = tensorrt.open_session(engine, SessionOptions(_no_module, cuda_graph=True))
    assert recorded.facts["cuda_graph"]
    assert not session.facts["cuda_graph"]
    for count in (4, 1):
        np.testing.assert_allclose(recorded.run(_images(count)), session.run(_images(count)), rtol=1e-5)
    recorded.close()


@pytest.mark.gpu
@needs_gpu
def test_too_large_a_batch_is_a_usage_error(session: tensorrt.EngineSession) -> None:
    with pytest.raises(UsageError, match="batches of 1 to 4"):
        session.profile(_images(5), repeats=1, cuda_graph=False)


def test_the_runtime_is_found_by_its_name() -> None:
    assert "tensorrt" in discover.names("optkit.runtimes")
