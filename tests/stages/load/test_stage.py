from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from optkit.core import machine
from optkit.core.errors import InputError, MissingError, OptkitError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import Context, Format, ModelSpec, Output, Precision, Preprocess, TrainedOn
from optkit.graph.onnx_file import embed_spec, read_onnx, spec_from_metadata
from optkit.models.build import build
from optkit.models.checkpoint import read_state, save_checkpoint, spec_of
from optkit.runtimes import tensorrt
from optkit.stages.load.config import Config
from optkit.stages.load.stage import run

MakeOnnx = Callable[..., onnx.ModelProto]
Load = Callable[..., tuple[Output, list[str]]]
ARCH = "test_efficientnet"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def load(work: Path) -> Load:
    """Run the stage; returns its output and its warnings."""

    def run_load(path: Path, **options: object) -> tuple[Output, list[str]]:
        config, reporter = Config(path=str(path), **options), SilentReporter()
        config.check()
        return run(config, {}, Context(work, reporter)), reporter.warnings

    return run_load


def _refusal(load: Load, path: Path, kind: type[OptkitError], **options: object) -> OptkitError:
    """The error with which a file is refused; it is complete and nothing was written."""
    with pytest.raises(kind) as caught:
        load(path, **options)
    error = caught.value
    assert error.message
    assert error.hint
    assert list((path.parent / "work").iterdir()) == []
    return error


def _spec(**changes: object) -> ModelSpec:
    spec = ModelSpec(
        arch=ARCH,
        num_classes=5,
        class_names=tuple("abcde"),
        preprocess=Preprocess(size=32, mean=(0.1, 0.2, 0.3), crop_mode="squash"),
        trained_on=(TrainedOn(sample=("f00d",)),),
    )
    return spec.model_copy(update=changes)


# ONNX


def test_onnx_with_metadata_keeps_its_spec(
    make_onnx: MakeOnnx, load: Load, tmp_path: Path, work: Path
) -> None:
    model = make_onnx()
    embed_spec(model, _spec())
    onnx.save(model, tmp_path / "m.onnx")
    output, warnings = load(tmp_path / "m.onnx")
    assert (output.format, output.precision, output.spec) == (Format.ONNX, Precision.FP32, _spec())
    assert warnings == []
    assert spec_from_metadata(read_onnx(work / "model.onnx")) == _spec()
    macs, params, activations = 16 * 27 * 32 * 32 + 16 * 5, 16 * 27 + 16 * 5, 16 * 32 * 32 + 5
    assert output.metrics == {"macs": macs, "params": params, "activations": activations}


def test_options_override_the_metadata(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    model = make_onnx()
    embed_spec(model, _spec())
    onnx.save(model, tmp_path / "m.onnx")
    output, _ = load(tmp_path / "m.onnx", mean=(0.0, 0.0, 0.0), class_names=tuple("vwxyz"))
    assert output.spec is not None
    assert output.spec.preprocess == _spec().preprocess.model_copy(update={"mean": (0.0, 0.0, 0.0)})
    assert output.spec.class_names == tuple("vwxyz")
    assert output.spec.trained_on == _spec().trained_on


def test_bare_onnx_is_completed_loudly(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    make_onnx(tmp_path / "m.onnx")
    output, warnings = load(tmp_path / "m.onnx", crop_pct=0.9)
    assert output.spec is not None
    assert output.spec.arch == "onnx"
    assert output.spec.preprocess == Preprocess(size=32, crop_pct=0.9)
    (warning,) = warnings
    assert "ASSUMED: mean (0.485" in warning
    assert "crop_pct 1" not in warning


def test_everything_given_leaves_nothing_to_assume(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    make_onnx(tmp_path / "m.onnx", size=None)
    own = {"size": 48, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "crop_pct": 1.0,
           "crop_mode": "squash"}  # fmt: skip
    output, warnings = load(tmp_path / "m.onnx", **own)
    assert output.spec is not None
    assert output.spec.preprocess == Preprocess(**own)
    assert warnings == []


def test_size_is_asked_for_or_must_fit(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    make_onnx(tmp_path / "open.onnx", size=None)
    assert "--size" in _refusal(load, tmp_path / "open.onnx", UsageError).hint
    make_onnx(tmp_path / "fixed.onnx", size=32)
    assert "--size 32" in _refusal(load, tmp_path / "fixed.onnx", UsageError, size=224).hint


def test_class_names_must_be_complete(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    make_onnx(tmp_path / "m.onnx")
    assert "5 classes" in _refusal(load, tmp_path / "m.onnx", UsageError, class_names=("a", "b")).message


def test_precision_is_read_off_the_graph(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    model = make_onnx()
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "scale"))
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["kernel", "scale"], ["q"]))
    model.graph.node.insert(1, helper.make_node("DequantizeLinear", ["q", "scale"], ["dq"]))
    next(node for node in model.graph.node if node.op_type == "Conv").input[1] = "dq"
    onnx.save(model, tmp_path / "int8.onnx")
    assert load(tmp_path / "int8.onnx")[0].precision == Precision.INT8


def test_half_weights_are_fp16(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    model = make_onnx()
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, tmp_path / "half.onnx")
    assert load(tmp_path / "half.onnx")[0].precision == Precision.FP16


def test_external_data_is_merged(make_onnx: MakeOnnx, load: Load, tmp_path: Path, work: Path) -> None:
    plain = make_onnx()
    onnx.save(
        make_onnx(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    before = Config(path=str(tmp_path / "m.onnx")).canonical()
    load(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    merged = {t.name: numpy_helper.to_array(t) for t in read_onnx(work / "model.onnx").graph.initializer}
    for tensor in plain.graph.initializer:
        np.testing.assert_array_equal(merged[tensor.name], numpy_helper.to_array(tensor))
    assert [path.name for path in work.iterdir()] == ["model.onnx"]
    assert Config(path=str(tmp_path / "m.onnx")).canonical() != before  # the key knows of the data


def test_missing_external_data(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    onnx.save(
        make_onnx(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    (tmp_path / "m.data").unlink()
    error = _refusal(load, tmp_path / "m.onnx", InputError)
    assert "m.data" in error.why
    assert "external data" in error.hint


def test_external_data_outside_the_folder_is_refused(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "work").mkdir()
    onnx.save(make_onnx(), inner / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    (inner / "m.data").rename(tmp_path / "m.data")
    model = onnx.load(inner / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../m.data"
    (inner / "m.onnx").write_bytes(model.SerializeToString())
    _refusal(load, inner / "m.onnx", InputError)


@pytest.mark.parametrize("keep", [0, 10, 200, 1000])
def test_truncated_onnx(make_onnx: MakeOnnx, load: Load, tmp_path: Path, keep: int) -> None:
    content = make_onnx().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content[:keep])
    assert "m.onnx" in _refusal(load, tmp_path / "m.onnx", InputError).message


def test_onnx_that_is_no_classifier(load: Load, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 7])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 7])],
    )
    onnx.save(helper.make_model(graph, ir_version=10), tmp_path / "m.onnx")
    assert "rank 2" in _refusal(load, tmp_path / "m.onnx", InputError).why


def test_metadata_that_does_not_fit_the_graph(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    model = make_onnx(classes=3)
    embed_spec(model, _spec())
    onnx.save(model, tmp_path / "m.onnx")
    assert "5 classes, the output has 3" in _refusal(load, tmp_path / "m.onnx", InputError).why


# Checkpoints


def test_safetensors_with_a_spec(load: Load, tmp_path: Path, work: Path) -> None:
    save_checkpoint(build(ARCH, 5), _spec(), tmp_path / "m.safetensors")
    output, warnings = load(tmp_path / "m.safetensors")
    assert (output.format, output.spec, warnings) == (Format.TORCH, _spec(), [])
    assert spec_of(work / "model.safetensors") == _spec()
    assert output.metrics["params"] == sum(p.numel() for p in build(ARCH, 5).parameters())


def test_state_dict_with_an_architecture(load: Load, tmp_path: Path, work: Path) -> None:
    module = build(ARCH, 7)
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "m.pth")
    output, warnings = load(tmp_path / "m.pth", arch=ARCH, size=64)
    assert output.spec is not None
    assert (output.spec.num_classes, output.spec.preprocess.size) == (7, 64)
    assert any("ASSUMED" in warning for warning in warnings)
    written = read_state(work / "model.safetensors")
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(written[name], tensor)


def test_a_bare_checkpoint_needs_an_architecture(load: Load, tmp_path: Path) -> None:
    torch.save(build(ARCH, 7).state_dict(), tmp_path / "m.pth")
    assert "--arch" in _refusal(load, tmp_path / "m.pth", UsageError).hint
    assert "--arch" in _refusal(load, tmp_path / "m.pth", InputError, arch="resnet18").hint


def test_an_unknown_architecture(load: Load, tmp_path: Path) -> None:
    torch.save(build(ARCH, 7).state_dict(), tmp_path / "m.pth")
    _refusal(load, tmp_path / "m.pth", UsageError, arch="test_efficientnett")


def test_a_pickled_module_is_not_opened(load: Load, tmp_path: Path) -> None:
    torch.save(build(ARCH, 5), tmp_path / "m.pth")
    assert "pickle" in _refusal(load, tmp_path / "m.pth", InputError, arch=ARCH).message


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path(EVIL),))


EVIL = ""


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_hostile_pickle_does_nothing(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.EVIL", str(tmp_path / "evil"))
    (tmp_path / "m.pth").write_bytes(pickle.dumps(_Evil()))
    _refusal(load, tmp_path / "m.pth", InputError, arch=ARCH)
    torch.save({"weight": _Evil()}, tmp_path / "n.pth")
    _refusal(load, tmp_path / "n.pth", InputError, arch=ARCH)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
def test_truncated_checkpoints(load: Load, tmp_path: Path, name: str) -> None:
    if name == "m.pth":
        torch.save(build(ARCH, 5).state_dict(), tmp_path / name)
    else:
        save_checkpoint(build(ARCH, 5), _spec(), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for keep in (0, 100, len(content) // 2):
        (tmp_path / name).write_bytes(content[:keep])
        _refusal(load, tmp_path / name, InputError, arch=ARCH)


# Engines


def test_a_text_file_named_plan(load: Load, tmp_path: Path) -> None:
    (tmp_path / "e.plan").write_text("not an engine\n" * 20)
    assert "is not a TensorRT engine" in _refusal(load, tmp_path / "e.plan", InputError).message


@pytest.mark.skipif((machine.tensorrt() or ("",))[0] != "tensorrt_rtx", reason="tensorrt_rtx is not here")
@pytest.mark.skipif(tensorrt.unavailable() is None, reason="there is a GPU")
def test_a_bare_engine_without_a_gpu_says_what_it_is(make_onnx: MakeOnnx, load: Load, tmp_path: Path) -> None:
    make_onnx(tmp_path / "m.onnx")
    tensorrt.build_engine(tmp_path / "m.onnx", tmp_path / "e.plan", "SM89", 2, 32)
    error = _refusal(load, tmp_path / "e.plan", MissingError)
    assert error.exit_code == 3
    assert f"TensorRT-RTX {machine.version('tensorrt-rtx')} engine for SM89" in error.message
    assert "no CUDA device" in error.why
    assert "optkit bench" in error.hint
