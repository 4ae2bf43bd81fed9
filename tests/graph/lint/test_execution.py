from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from optkit.core import discover
from optkit.core.errors import InputError
from optkit.graph.lint.base import examine
from optkit.graph.lint.execution import execution_of, integer_share, openvino_share
from optkit.runtimes import openvino as runtime
from tests.graph.lint.support import node, plain, quantized

ROOT = Path(__file__).resolve().parents[3]
needs_openvino = pytest.mark.skipif(not discover.installed("openvino"), reason="openvino is not installed")


def test_share_tells_integer_from_float_convolutions_by_name() -> None:
    fused = integer_share(quantized("residual", "onnxruntime"))
    assert fused["convolutions"] == 3
    assert fused["share"] == 1
    assert fused["integer"] == ["conv0", "conv3", "conv5"]
    assert fused["operators"]["QLinearConv"] == 3
    floating = integer_share(quantized("residual", "tensorrt"))
    assert floating["share"] == 0
    assert floating["float"] == ["conv0", "conv3", "conv5"]
    assert "QLinearConv" not in floating["operators"]


def test_share_of_a_partly_quantised_network() -> None:
    model = quantized("residual", "onnxruntime")
    node(model, "conv5").input[0] = "relu4"  # in floating point, not through Q/DQ
    found = integer_share(model)
    assert found["float"] == ["conv3", "conv5"]  # nothing makes integers of what conv3 answers either
    assert found["share"] == pytest.approx(1 / 3)


def test_names_need_not_be_there_or_be_different() -> None:
    model = quantized("residual", "tensorrt")
    for entry in model.graph.node:
        entry.name = "" if entry.output[0] == "conv3" else "same"
    assert integer_share(model)["float"] == ["same", "Conv → conv3", "same"]


def test_without_convolutions_there_is_no_share() -> None:
    value = onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["input"], ["out"])], "g", [value], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    assert integer_share(model)["share"] is None


def test_what_the_runtime_refuses_is_an_input_error() -> None:
    model = plain("residual")
    node(model, "conv3").attribute.append(onnx.helper.make_attribute("strides", [0, 0]))
    model.graph.node[0].op_type = "Unknown"
    with pytest.raises(InputError, match="ONNX Runtime refuses") as caught:
        integer_share(model)
    assert "Unknown" in caught.value.why


@needs_openvino
def test_openvino_tells_the_precision_of_its_layers() -> None:
    found = openvino_share(quantized("gated", "tensorrt"))
    assert found["float"] == ["conv4", "conv7"]  # the SE gate is left in float
    if found["integer"]:  # on a CPU that computes in integers at all
        assert found["integer"] == ["conv0", "conv10"]


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_an_absent_runtime_is_said(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optkit.graph.lint.execution.discover.installed", lambda name: name != target)
    assert target in execution_of(plain("residual"), target).unchecked
    linted = examine(quantized("residual", "onnxruntime"), target)
    assert [found.rule for found in linted.findings] == ["unchecked"]


@needs_openvino
def test_openvino_is_opened_once_for_linter_and_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    runtime._core()
    monkeypatch.delattr(openvino, "Core")
    assert openvino_share(plain("residual"))["convolutions"] == 3


@needs_openvino
def test_openvino_sends_no_telemetry() -> None:
    code = (
        "import sys; from tests.graph.lint.support import plain; "
        "from optkit.graph.lint.execution import openvino_share; openvino_share(plain('residual')); "
        "sys.exit(sys.modules['openvino_telemetry'] is not None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
