"""Layers beside the ceilings, from a model file to the rows of the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optkit.core.errors import InputError, MissingError
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Precision, Preprocess
from optkit.measure import dense, roofline
from optkit.measure.roofline import Ceilings
from optkit.models.build import build
from optkit.runtimes.base import SessionOptions
from optkit.stages.bench.layers import ceilings, layer_costs

OPTIONS = SessionOptions(load_module=lambda artifact: build(artifact.spec.arch, 5), threads=1)
LIMITS = Ceilings({"fp32": 1e10, "int8": 4e10}, 1e10, "cpu", 1, "made up")


def artifact(folder: Path, format: Format, arch: str = "small", classes: int = 5) -> Artifact:
    names = tuple("abcdefgh"[:classes])
    spec = ModelSpec(arch=arch, num_classes=classes, class_names=names, preprocess=Preprocess(size=32))
    manifest = Manifest(stage="x", key="k", format=format, spec=spec, precision=Precision.FP32)
    return Artifact("k", folder, manifest)


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime:cpu", "openvino", "openvino:throughput"])
def test_a_graph(runtime: str, tmp_path: Path, make_onnx) -> None:
    make_onnx(tmp_path / Format.ONNX.filename)
    found = layer_costs(artifact(tmp_path, Format.ONNX), runtime, OPTIONS, 4, LIMITS, 5)
    json.dumps(found, allow_nan=False)
    counted = {row["name"]: row for row in found["layers"] if row["macs"]}
    # The tiny head may take less than the microsecond that OpenVINO counts in.
    assert {*counted, *found["without_time"]} == {"conv", "head"}
    assert counted["conv"]["macs"] == 4 * 32 * 32 * 16 * 27
    assert counted["conv"]["bytes"] == 4 * 16 * 27 + 4 * 4 * (3 + 16) * 32 * 32
    assert counted["conv"]["bound"] == "compute"
    assert sum(row["share"] for row in found["layers"]) == pytest.approx(
        1 - found["unmapped_ms"] / found["total_ms"]
    )
    assert counted["conv"]["of_limit"] > 0


def test_a_torch_network(tmp_path: Path) -> None:
    model = artifact(tmp_path, Format.TORCH, "test_efficientnet")
    found = layer_costs(model, "pytorch", OPTIONS, 1, LIMITS, 3)
    counted = [row for row in found["layers"] if row["macs"]]
    assert found["without_time"] == []
    assert "conv_stem" in {row["name"] for row in counted}
    assert {row["precision"] for row in counted} == {"fp32"}
    others = {row["type"] for row in found["layers"] if not row["macs"]}
    assert "BatchNormAct2d" in others
    assert 0 < found["counted_ms"] < found["total_ms"]


def test_what_cannot_be_told_says_why(tmp_path: Path, make_onnx) -> None:
    make_onnx(tmp_path / Format.ONNX.filename)
    with pytest.raises(MissingError, match="does not tell"):
        layer_costs(artifact(tmp_path, Format.ONNX), "null", OPTIONS, 1, None, 3)
    with pytest.raises(MissingError, match="compiled"):
        layer_costs(artifact(tmp_path, Format.TORCH), "pytorch:compiled", OPTIONS, 1, None, 3)


def test_an_engine_needs_its_onnx_file(tmp_path: Path, make_onnx, monkeypatch: pytest.MonkeyPatch) -> None:
    from optkit.runtimes import tensorrt
    from optkit.runtimes._kernels import KernelTime, LayerTimes

    times = LayerTimes([KernelTime("conv + relu", "Layer", 1.0, ("conv", "relu"))], 0.5)
    monkeypatch.setattr(tensorrt, "layer_times", lambda artifact, options, repeats: times)
    engine = artifact(tmp_path, Format.ENGINE)
    with pytest.raises(InputError, match="ONNX file"):
        layer_costs(engine, "tensorrt", OPTIONS, 1, LIMITS, 3)
    make_onnx(tmp_path / Format.ONNX.filename)
    found = layer_costs(engine, "tensorrt", OPTIONS, 1, LIMITS, 3)
    assert [row["name"] for row in found["layers"]] == ["conv"]
    assert found["without_time"] == ["head"]


def test_the_ceilings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "last_level_cache", lambda: 2 << 20)
    monkeypatch.setattr(dense, "SIZES", (128,))
    found = ceilings(("fp32",), 1, "cpu", 0.05)
    assert found.threads == 1
    assert found.macs_per_s.keys() == {"fp32"}
    assert found.bytes_per_s > 0
