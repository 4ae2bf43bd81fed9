from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from optkit.core import discover, machine
from optkit.core.errors import InputError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import Artifact, Context, Format, ModelSpec, Output, Precision
from optkit.graph.clean import opset
from optkit.graph.onnx_file import classifier_io, read_onnx, spec_from_metadata
from optkit.models.checkpoint import load_module, save_checkpoint
from optkit.runtimes import tensorrt
from optkit.stages.export import stage
from optkit.stages.export.config import Config
from optkit.stages.export.parity import check_parity

needs_ort = pytest.mark.skipif(not discover.installed("onnxruntime"), reason="onnxruntime is not installed")
needs_rtx = pytest.mark.skipif(
    (machine.tensorrt() or ("",))[0] != "tensorrt_rtx", reason="tensorrt_rtx is not what is installed"
)

Exported = tuple[Artifact, Output]


def test_batch_is_dynamic_and_names_are_fixed(exported: Exported) -> None:
    io = classifier_io(read_onnx(exported[0].file))
    assert (io.input_name, io.output_name, io.batch, io.size) == ("input", "logits", None, 32)
    assert io.num_classes == 5


def test_batchnorm_is_folded_and_kernel_shapes_are_written(exported: Exported) -> None:
    nodes = read_onnx(exported[0].file).graph.node
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert convolutions
    assert not [node for node in nodes if node.op_type == "BatchNormalization"]
    assert all("kernel_shape" in {a.name for a in node.attribute} for node in convolutions)


def test_file_holds_no_path_of_this_machine(exported: Exported) -> None:
    content = exported[0].file.read_bytes()
    assert b"stack_trace" not in content
    assert str(Path(torch.__file__).parent).encode() not in content


def test_spec_travels_in_the_file(exported: Exported, spec: ModelSpec) -> None:
    model = read_onnx(exported[0].file)
    assert spec_from_metadata(model) == spec
    assert opset(model) == 20
    assert exported[1].spec == spec


@needs_ort
def test_parity_was_measured_at_three_batches(exported: Exported) -> None:
    parity = exported[1].details["parity"]
    assert set(parity) == {"1", "2", "5"}
    assert all(0 < found["max_rel_error"] < 1e-3 for found in parity.values())
    assert all(found["agreement"] == 1.0 for found in parity.values())
    json.dumps(exported[1].details, allow_nan=False)


@needs_ort
def test_other_weights_are_noticed(exported: Exported, checkpoint: Artifact, spec: ModelSpec) -> None:
    module = load_module(checkpoint)
    with torch.no_grad():
        module.get_classifier().weight[2] *= 1.05
    with pytest.raises(InputError, match="does not answer as the network does at batch 1"):
        check_parity(module, exported[0].file, spec, 5, 0, SilentReporter())


@needs_ort
def test_a_fixed_batch_is_noticed(
    exported: Exported, checkpoint: Artifact, spec: ModelSpec, tmp_path: Path
) -> None:
    model = read_onnx(exported[0].file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / Format.ONNX.filename)
    with pytest.raises((InputError, RuntimeError, ValueError)):
        check_parity(load_module(checkpoint), tmp_path / Format.ONNX.filename, spec, 2, 0, SilentReporter())


@needs_ort
def test_logits_that_hardly_vary_are_warned_of(
    exported: Exported, checkpoint: Artifact, spec: ModelSpec, tmp_path: Path
) -> None:
    module, model = load_module(checkpoint), read_onnx(exported[0].file)
    with torch.no_grad():
        for parameter in module.get_classifier().parameters():
            parameter *= 1e-6
    (head,) = [node for node in model.graph.node if node.op_type == "Gemm"]
    for tensor in model.graph.initializer:
        if tensor.name in head.input[1:]:
            small = onnx.numpy_helper.to_array(tensor) * np.float32(1e-6)
            tensor.CopyFrom(onnx.numpy_helper.from_array(small, tensor.name))
    path = tmp_path / Format.ONNX.filename
    onnx.save(model, path)
    reporter = SilentReporter()
    check_parity(module, path, spec, 2, 0, reporter)
    assert any("says little" in warning for warning in reporter.warnings)


def test_cost_is_counted_or_copied(exported: Exported, checkpoint: Artifact) -> None:
    counted = exported[1].metrics
    parameters = sum(p.numel() for p in load_module(checkpoint).parameters())
    assert counted["macs"] > 1e5
    assert abs(counted["params"] / parameters - 1) < 0.05  # BatchNorm is folded away


def test_export_says_nothing(
    checkpoint: Artifact, spec: ModelSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    stage.to_onnx(load_module(checkpoint), spec, 18)
    assert capfd.readouterr() == ("", "")


def test_an_opset_that_is_not_honoured_is_an_error(checkpoint: Artifact, spec: ModelSpec) -> None:
    with pytest.raises(UsageError, match="cannot write opset 99"):
        stage.to_onnx(load_module(checkpoint), spec, 99)


class _FixedBatch(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.reshape(2, -1)[:, :5]


class _DependsOnData(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3)) if pixels.sum() > 0 else -pixels.mean((2, 3))


@pytest.mark.parametrize("network", [_FixedBatch, _DependsOnData])
def test_networks_that_cannot_be_exported(network: type[torch.nn.Module], spec: ModelSpec) -> None:
    with pytest.raises(InputError) as caught:
        stage.to_onnx(network().eval(), spec, 20)
    assert caught.value.why
    assert caught.value.hint


def test_onnx_to_onnx_is_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is an ONNX file already"):
        stage.run(Config(), {"model": {"o": exported[0]}}, Context(tmp_path, SilentReporter()))
    assert list(tmp_path.iterdir()) == []


@needs_rtx
def test_engine_from_onnx_keeps_the_onnx_beside_it(exported: Exported, tmp_path: Path) -> None:
    config = Config(format="tensorrt", target="sm89", max_batch=4)
    output = stage.run(config, {"model": {"o": exported[0]}}, Context(tmp_path, SilentReporter()))
    assert output.format == Format.ENGINE
    assert output.precision == Precision.FP32
    assert output.metrics == exported[0].manifest.metrics
    assert (tmp_path / "model.onnx").read_bytes() == exported[0].file.read_bytes()
    facts = output.details["engine"]
    assert facts["compute_capability"] == ["SM89"]
    assert facts["max_batch"] == 4
    assert facts["version"] == machine.version("tensorrt-rtx")
    assert tensorrt.describe(tmp_path / "engine.plan")["size_bytes"] == facts["size_bytes"]
    json.dumps(output.details, allow_nan=False)


@needs_rtx
def test_engine_from_a_checkpoint(checkpoint: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    config = Config(format="tensorrt", target="portable", max_batch=2)
    output = stage.run(config, {"model": {"ft": checkpoint}}, Context(folder, SilentReporter()))
    assert sorted(path.name for path in folder.iterdir()) == ["engine.plan", "model.onnx"]
    assert output.details["engine"]["onnx"] == "model.onnx"
    assert {"SM86", "SM89", "SM120"} <= set(output.details["engine"]["compute_capability"])


def test_a_broken_checkpoint_writes_nothing(checkpoint: Artifact, spec: ModelSpec, tmp_path: Path) -> None:
    other = spec.model_copy(update={"num_classes": 7, "class_names": tuple("abcdefg")})
    source, folder = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    folder.mkdir()
    save_checkpoint(load_module(checkpoint), other, source / Format.TORCH.filename)
    broken = Artifact("k", source, checkpoint.manifest.model_copy(update={"spec": other}))
    with pytest.raises(InputError):
        stage.run(Config(), {"model": {"ft": broken}}, Context(folder, SilentReporter()))
    assert list(folder.iterdir()) == []
