"""Files from outside: whatever is in them ends in findings or an InputError."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from optkit.core.errors import InputError, UsageError
from optkit.graph.lint.base import Severity, lint, lint_file
from tests.graph.lint.support import add, node, plain, put, quantized

TARGETS = ("onnxruntime", "tensorrt")


def missing_initializer(model: onnx.ModelProto) -> None:
    del model.graph.initializer[:]


def cycle(model: onnx.ModelProto) -> None:
    node(model, "conv3").input[0] = "conv5"


def truncated_weights(model: onnx.ModelProto) -> None:
    tensor = next(entry for entry in model.graph.initializer if entry.name == "conv3.weight.quantized")
    tensor.raw_data = tensor.raw_data[:7]


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")


def empty(model: onnx.ModelProto) -> None:
    model.Clear()


def no_standard_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = "com.nobody"


@pytest.mark.parametrize(
    "damage", [missing_initializer, cycle, truncated_weights, external, empty, no_standard_opset]
)
def test_a_broken_graph_is_one_kind_of_finding(damage) -> None:
    model = quantized("residual", "tensorrt")
    damage(model)
    found = lint(model, "tensorrt")
    assert found
    assert {(entry.rule, entry.severity) for entry in found} == {("valid-file", Severity.ERROR)}
    assert all(entry.reason for entry in found)


def impostors(model: onnx.ModelProto) -> None:
    """Standard names in a domain that no checker knows, with nothing that they should have."""
    model.opset_import.append(helper.make_opsetid("com.nobody", 1))
    for index, kind in enumerate(("QuantizeLinear", "Conv", "Sigmoid", "Mul", "Add", "Relu", "Reshape")):
        add(model, "conv3", kind, [], f"odd{index}", domain="com.nobody")
        add(model, "conv3", kind, ["relu4" if index > 9 else "input"], f"even{index}", domain="com.nobody")


def odd_contrib_codecs(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    add(model, "conv3", "QuantizeLinear", ["input"], "short", domain="com.microsoft")
    add(model, "conv3", "QuantizeLinear", ["input", "s"], "text", domain="com.microsoft", axis="first")
    put(model, "s", np.array(["a", "b"], dtype=object))


def flat_weights(model: onnx.ModelProto) -> None:
    put(model, "conv3.weight.quantized", np.ones(16, np.int8))
    put(model, "conv0.weight.quantized", np.int8(1))


def wrong_types(model: onnx.ModelProto) -> None:
    put(model, "relu4.scale", np.array(3, np.int64))
    put(model, "relu4.zero_point", np.float32(0.5))
    put(model, "conv0.weight.scale", np.zeros((0,), np.float32))
    put(model, "conv3.weight.scale", np.array(["x"], dtype=object))


def vague_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("damage", [impostors, odd_contrib_codecs, flat_weights, wrong_types, vague_input])
def test_odd_graphs_end_in_findings(damage, target: str) -> None:
    model = quantized("residual", "onnxruntime")
    damage(model)
    assert any(entry.severity is Severity.ERROR for entry in lint(model, target))


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_raises(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = quantized(("residual", "gated")[seed % 2], TARGETS[seed // 2 % 2])
    nodes = model.graph.node
    for _ in range(3):
        victim = nodes[rng.integers(len(nodes))]
        action = rng.integers(5)
        if action == 0 and len(victim.input):
            other = nodes[rng.integers(len(nodes))]
            victim.input[rng.integers(len(victim.input))] = other.output[0]
        elif action == 1:
            nodes.remove(victim)
        elif action == 2 and len(victim.attribute):
            del victim.attribute[0]
        elif action == 3:
            victim.op_type = nodes[rng.integers(len(nodes))].op_type
        else:
            tensor = model.graph.initializer[rng.integers(len(model.graph.initializer))]
            shape = rng.integers(0, 3, rng.integers(0, 4))
            put(model, tensor.name, rng.integers(-2, 2, shape).astype(rng.choice(["f4", "i1", "f8", "i8"])))
    for target in TARGETS:
        assert isinstance(lint(model, target), list)


def test_long_chains_take_no_time() -> None:
    """10,000 pairs one behind the other; a quadratic rule would take minutes."""
    model = plain("residual")
    scale, zero = put(model, "s", np.float32(1)), put(model, "z", np.int8(0))
    nodes, tensor = [], "input"
    for index in range(10_000):
        nodes.append(helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"q{index}"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{index}", scale, zero], [f"d{index}"]))
        tensor = f"d{index}"
    node(model, "conv0").input[0] = tensor
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    found = lint(model, "tensorrt")
    assert sum(entry.rule == "repeated" for entry in found) == 9_999


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(InputError, match="no ONNX file"):
        lint_file(path, "tensorrt")
    path.write_bytes(b"\xff\xfe not a model")
    with pytest.raises(InputError, match="not a valid ONNX file"):
        lint_file(path, "tensorrt")


def test_unknown_targets_are_refused_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tensorr'") as caught:
        lint_file(tmp_path / "absent.onnx", "tensorr")
    assert "tensorrt" in caught.value.hint
    with pytest.raises(UsageError):
        lint(plain("residual"), "tflite")


def test_external_data_is_noted(tmp_path: Path) -> None:
    model = quantized("residual", "tensorrt")
    onnx.save(model, tmp_path / "one.onnx")
    onnx.save(model, tmp_path / "two.onnx", save_as_external_data=True, location="data", size_threshold=0)
    rules = [
        {entry.rule for entry in lint_file(tmp_path / name, "tensorrt").findings}
        for name in ("one.onnx", "two.onnx")
    ]
    assert rules[1] - rules[0] == {"external-data"}
