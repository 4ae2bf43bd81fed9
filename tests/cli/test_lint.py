from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from optkit.core.store import write_atomically
from optkit.core.types import MANIFEST, FileEntry, Format, Manifest
from tests.cli.support import optkit
from tests.graph.lint.support import add, node, plain, put, quantized


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(quantized("residual", "tensorrt"), "trt.onnx")
    onnx.save(quantized("residual", "onnxruntime"), "ort.onnx")
    return tmp_path


def artifact(folder: Path, stage: str, config: dict[str, object], format: Format = Format.ONNX) -> None:
    """An artifact folder as the stages leave it."""
    folder.mkdir()
    onnx.save(quantized("residual", "tensorrt"), folder / format.filename)
    manifest = Manifest(
        stage=stage,
        key="k",
        format=format,
        config=config,
        files={format.filename: FileEntry(sha256="0" * 64, size_bytes=1)},
    )
    write_atomically(folder / MANIFEST, manifest.model_dump_json())


def test_a_clean_file(here: Path) -> None:
    done = optkit("lint", "trt.onnx", "--for", "tensorrt")
    assert done.code == 0
    assert "trt.onnx is clean for tensorrt." in done.out
    assert "next: optkit export trt.onnx --format tensorrt" in done.err


def test_errors_name_rule_node_reason_and_remedy_and_exit_with_1(here: Path) -> None:
    done = optkit("lint", "ort.onnx", "--for", "tensorrt")
    assert done.code == 1
    assert "error residual-edge (1)" in done.out
    assert "add6: Q/DQ on both operands" in done.out
    assert "what to do: Put Q/DQ on the shortcut only" in done.out
    assert "optkit quantize" in done.err
    order = [done.out.index(word) for word in ("error ", "warning ", "note ")]
    assert order == sorted(order)


def test_the_target_decides(here: Path) -> None:
    done = optkit("lint", "ort.onnx", "--for", "onnxruntime")
    assert done.code == 0
    assert "onnxruntime runs 3 of 3 convolutions in integers" in done.out
    assert "next: optkit bench ort.onnx" in done.err


def test_a_file_for_openvino_is_measured_in_openvino(here: Path) -> None:
    done = optkit("lint", "ort.onnx", "--for", "openvino")
    assert "next: optkit bench ort.onnx --runtimes openvino\n" in done.err


def test_warnings_alone_do_not_fail(here: Path) -> None:
    model = quantized("residual", "tensorrt")
    put(model, "conv0.weight.scale", np.float32(0.01))
    put(model, "conv0.weight.zero_point", np.int8(0))
    onnx.save(model, "m.onnx")
    done = optkit("lint", "m.onnx", "--for", "tensorrt")
    assert done.code == 0
    assert "m.onnx for tensorrt: errors 0, warnings 1." in done.out


def test_json(here: Path) -> None:
    bad = optkit("lint", "trt.onnx", "--for", "onnxruntime", "--json")
    assert bad.code == 1
    assert bad.json["target"] == "onnxruntime"
    assert not bad.json["clean"]
    assert bad.json["float_convolutions"] == ["conv0", "conv3", "conv5"]
    assert bad.json["integer_convolutions"] == []
    counts = bad.json["counts"]
    assert counts["error"] >= 1
    assert sum(counts.values()) == len(bad.json["findings"])
    assert set(bad.json["findings"][0]) == {"rule", "severity", "node", "reason", "remedy"}
    good = optkit("lint", "trt.onnx", "--for", "tensorrt", "--json")
    assert good.code == 0
    assert good.json["clean"]
    assert good.json["integer_convolutions"] is None  # nobody was asked


def test_many_nodes_are_shortened_for_people_and_complete_in_json(here: Path) -> None:
    onnx.save(quantized("gated", "onnxruntime"), "m.onnx")
    text = optkit("lint", "m.onnx", "--for", "tensorrt").out
    found = optkit("lint", "m.onnx", "--for", "tensorrt", "--json").json["findings"]
    nodes = [entry["node"] for entry in found if entry["rule"] == "zero-point"]
    assert len(nodes) > 8
    assert f"… and {len(nodes) - 8} more" in text


def test_an_artifact_knows_its_target(here: Path) -> None:
    artifact(here / "int8", "quantize", {"target": "tensorrt"})
    assert "int8 is clean for tensorrt" in optkit("lint", "int8").out
    other = optkit("lint", "int8", "--for", "onnxruntime")
    assert other.code == 1
    assert "mostly-float" in other.out


def test_an_export_tells_the_opset_that_was_asked_for(here: Path) -> None:
    artifact(here / "onnx", "export", {"opset": 17})
    done = optkit("lint", "onnx", "--for", "tensorrt")
    assert done.code == 1
    assert "Opset 17 was asked for, the file has 20" in done.out


@pytest.mark.parametrize(("opset", "code"), [("17", 1), ("20", 0)])
def test_the_opset_that_was_asked_for_can_be_given(here: Path, opset: str, code: int) -> None:
    done = optkit("lint", "trt.onnx", "--for", "tensorrt", "--opset", opset)
    assert done.code == code
    assert ("Opset 17 was asked for, the file has 20" in done.out) == (opset == "17")
    assert ("next: optkit export CHECKPOINT" in done.err) == (opset == "17")


def test_an_opset_that_is_given_counts_for_more_than_the_artifact_s(here: Path) -> None:
    artifact(here / "onnx", "export", {"opset": 17})
    assert optkit("lint", "onnx", "--for", "tensorrt", "--opset", "20").code == 0


def _truncated(path: Path) -> None:
    path.write_bytes(Path("trt.onnx").read_bytes()[:-100])


def _text(path: Path) -> None:
    path.write_text("<html><body>404: not found</body></html>\n" * 9)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _huge_weights(path: Path) -> None:
    model = quantized("residual", "tensorrt")
    model.graph.initializer[0].dims[:] = [2**31, 2**20]
    onnx.save(model, path)


def _negative_weights(path: Path) -> None:
    model = quantized("residual", "tensorrt")
    model.graph.initializer[0].dims[:] = [-1, 16]
    onnx.save(model, path)


def _data_missing(path: Path) -> None:
    model = quantized("residual", "tensorrt")
    onnx.save(model, path, save_as_external_data=True, location="data", size_threshold=0)
    Path("data").unlink()


def _data_short(path: Path) -> None:
    _data_missing(path)
    Path("data").write_bytes(b"12")


@pytest.mark.parametrize(
    "damage",
    [_truncated, _text, _empty, _huge_weights, _negative_weights, _data_missing, _data_short, Path.mkdir],
)
@pytest.mark.parametrize("name", ["m.onnx", "m.json"])
def test_garbage_is_one_clear_error(here: Path, damage: Callable[[Path], None], name: str) -> None:
    damage(Path(name))
    done = optkit("lint", name, "--for", "tensorrt", "--json")
    assert done.code == 4
    assert done.json["error"]["message"]
    assert done.json["error"]["hint"]
    assert "Traceback" not in done.out + done.err


def test_shapes_that_no_memory_holds_are_not_made(here: Path) -> None:
    model = plain("residual")
    put(model, "shape", np.array([2**20, 2**20], np.int64))
    add(model, "gemm9", "ConstantOfShape", ["shape"], "large")
    add(model, "gemm9", "ReduceMean", ["large"], "mean", keepdims=0)
    node(model, "gemm9").input[2] = add(model, "gemm9", "Add", [node(model, "gemm9").input[2], "mean"], "sum")
    onnx.save(model, "m.onnx")
    for target in ("onnxruntime", "tensorrt"):
        assert optkit("lint", "m.onnx", "--for", target).code == 0


def test_wrong_use_is_told(here: Path) -> None:
    unnamed = optkit("lint", "trt.onnx")
    assert unnamed.code == 2
    assert "--for" in unnamed.err
    assert optkit("lint", "trt.onnx", "--for", "tensort").code == 2
    assert optkit("lint", "absent.onnx", "--for", "tensorrt").code == 4
    (here / "empty").mkdir()
    assert optkit("lint", "empty", "--for", "tensorrt").code == 4
    artifact(here / "weights", "finetune", {}, Format.TORCH)
    done = optkit("lint", "weights", "--for", "tensorrt", "--json")
    assert done.code == 4
    assert "no ONNX file" in done.json["error"]["message"]


def test_broken_and_float_files(here: Path) -> None:
    Path("junk.onnx").write_bytes(b"junk")
    assert optkit("lint", "junk.onnx", "--for", "openvino").code == 4
    model = plain("residual")
    onnx.save(model, "fp32.onnx")
    model.graph.node[-1].op_type = "Identity"
    del model.graph.node[-1].input[1:], model.graph.node[-1].attribute[:]
    model.opset_import.add(domain="com.nobody", version=1)
    model.graph.node[-1].domain = "com.nobody"
    onnx.save(model, "foreign.onnx")
    done = optkit("lint", "foreign.onnx", "--for", "onnxruntime")
    assert "error refused" in done.out
    assert "next: optkit export CHECKPOINT" in done.err  # nothing of it is about quantisation
    done = optkit("lint", "fp32.onnx", "--for", "tensorrt")
    assert done.code == 0
    assert "It holds no Q/DQ" in done.out
