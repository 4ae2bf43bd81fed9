"""Bad input: one error that says what, why and what to do; a documented exit code; nothing written."""

from __future__ import annotations

import pickle
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from optkit.core import discover
from optkit.core.machine import gpus
from tests.cli.support import optkit
from tests.conftest import small_classifier


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photos(folder: Path, count: int = 6) -> Path:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (32, 32), (40 * index, 100, 200)).save(folder / name / f"{index}.jpg")
    return folder


def assert_refused(command: list[str], code: int, *texts: str) -> None:
    """One error in the agreed form, and nothing is written: no artifact, not even a half one."""
    before = files()
    outcome = optkit(*command)
    assert outcome.code == code, outcome.err
    assert outcome.err.count("error:") == 1
    assert "what to do:" in outcome.err
    assert "Traceback" not in outcome.err
    for text in texts:
        assert text in outcome.err
    assert outcome.out == ""
    assert files() == before


def files() -> dict[Path, bytes | None]:
    """All paths below the current folder, and what the files hold; the store's folders may be made."""
    store = {Path("runs"), Path("runs/.store"), Path("runs/.store/work")}
    found = {path: path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}
    return {path: content for path, content in found.items() if path not in store}


def test_misspelt_recipe_key(here: Path) -> None:
    (here / "r.yaml").write_text("steps: {ft: {stage: finetune, archh: lite0}}")
    assert_refused(["run", "r.yaml"], 2, "Unknown key 'archh'", "Did you mean 'arch'?")


def test_misspelt_option_and_command(here: Path) -> None:
    assert_refused(["finetune", "--epoch", "3"], 2, "--epoch", "optkit finetune --help")
    assert_refused(["finetun"], 2, "finetune")


def test_unknown_architecture(here: Path) -> None:
    assert_refused(["finetune", "--arch", "resnet81"], 2, "Unknown architecture 'resnet81'", "resnet18")
    assert_refused(["distill", "--teacher", "b7", "--student", "b99"], 2, "Unknown architecture 'b99'")


def test_missing_folder(here: Path) -> None:
    assert_refused(["finetune", "--data", "fotos/"], 4, "no data folder", "fotos/")


def test_empty_class(here: Path) -> None:
    (photos(here / "photos") / "empty").mkdir()
    assert_refused(["finetune", "--data", "photos"], 4, "photos/empty", "is empty", "why:")


def test_one_corrupt_image_among_good_ones_is_skipped(here: Path) -> None:
    (photos(here / "photos") / "cat" / "broken.jpg").write_bytes(b"not a photo")
    options = (
        "--data",
        "photos",
        "--arch",
        "test_efficientnet",
        "--weights",
        "scratch",
        "--size",
        "32",
        "--epochs",
        "1",
    )
    done = optkit("finetune", *options, "--json")
    assert done.code == 0, done.err
    assert "Skipped 1 corrupt image: cat/broken.jpg (not an image)" in " ".join(done.json["warnings"])


def test_one_corrupt_image_with_strict(here: Path) -> None:
    (photos(here / "photos") / "cat" / "broken.jpg").write_bytes(b"not a photo")
    assert_refused(["finetune", "--data", "photos", "--strict"], 4, "1 corrupt image", "cat/broken.jpg")


def test_truncated_onnx(here: Path) -> None:
    whole = small_classifier().SerializeToString()
    (here / "half.onnx").write_bytes(whole[: len(whole) // 2])
    for command in (["bench", "half.onnx"], ["quantize", "half.onnx"], ["evaluate", "half.onnx"]):
        assert_refused(command, 4, "half.onnx", "not a valid ONNX file", "why:")


@pytest.mark.skipif(not discover.installed("tensorrt_rtx"), reason="tensorrt-rtx is not installed")
def test_text_file_named_plan(here: Path) -> None:
    (here / "engine.plan").write_text("I am not an engine")
    assert_refused(["bench", "engine.plan"], 4, "engine.plan", "not a TensorRT engine", "why:")


def test_pickled_checkpoint(here: Path) -> None:
    torch.save(nn.Linear(2, 2), here / "module.pth")
    assert_refused(["export", "module.pth", "--arch", "lite0"], 4, "module.pth", "pickle", "why:")
    (here / "raw.pth").write_bytes(pickle.dumps({"a": 1}))
    assert_refused(["bench", "raw.pth", "--arch", "lite0"], 4, "raw.pth", "why:")


def test_an_onnx_file_that_is_no_classifier(here: Path) -> None:
    model = small_classifier(head="none")
    (pooling,) = [node for node in model.graph.node if node.op_type == "ReduceMean"]
    model.graph.node.remove(pooling)  # it answers a map of every class, as segmentation does
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("r", TensorProto.FLOAT, ["n", 5, 32, 32]))
    onnx.checker.check_model(model)
    onnx.save(model, here / "map.onnx")
    for command in (["bench", "map.onnx"], ["quantize", "map.onnx"], ["cost", "map.onnx"]):
        assert_refused(command, 4, "map.onnx", "why:")


def test_a_folder_that_is_no_artifact(here: Path) -> None:
    (here / "dir").mkdir()
    assert_refused(["bench", "dir"], 4, "neither an artifact nor a model file")


def test_out_folder_with_other_things_is_left_alone(here: Path) -> None:
    small_classifier(here / "m.onnx")
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years")
    done = optkit("cost", "m.onnx", "--out", "mine")
    assert done.code == 4
    assert "not an optkit artifact" in done.err
    assert [path.name for path in (here / "mine").iterdir()] == ["thesis.txt"]


def test_errors_as_json(here: Path) -> None:
    done = optkit("finetune", "--data", "fotos/", "--json")
    assert done.code == 4
    assert done.json["error"]["exit_code"] == 4
    assert "fotos/" in done.json["error"]["message"]


def test_a_bug_keeps_its_traceback(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("optkit.pipeline.plan", broken)
    done = optkit("cost", "b0")
    assert done.code == 70
    assert "Traceback" in done.err
    assert "bug in optkit" in done.err


def test_interruption(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optkit.pipeline.plan", interrupted)
    assert optkit("cost", "b0").code == 130


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU, so the engine would run")
@pytest.mark.skipif(not discover.installed("tensorrt_rtx"), reason="tensorrt-rtx is not installed")
def test_bench_of_an_engine_without_a_gpu(here: Path) -> None:
    """What the file is, what is missing, and what to type instead; exit code 3."""
    small_classifier(here / "m.onnx")
    load = ("--size", "32", "--class-names", "a,b,c,d,e")
    built = optkit("export", "m.onnx", "--format", "tensorrt", "--target", "SM89", "--out", "engine", *load)
    assert built.code == 0, built.err
    done = optkit("bench", "engine/engine.plan")
    assert done.code == 3
    for text in ("TensorRT-RTX", "SM89", "fp32", "32", "CUDA", "optkit bench engine/model.onnx"):
        assert text in done.err, text
    assert optkit("bench", "engine/model.onnx", "--seconds", "0.2", *load).code == 0
