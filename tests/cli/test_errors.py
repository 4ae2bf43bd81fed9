"""Bad input: one error that says what, why and what to do; a documented exit code; nothing written."""

from __future__ import annotations

import errno
import os
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from optkit.core import discover
from optkit.core.machine import gpus
from optkit.core.store import read_artifact
from optkit.train.checkpoints import Checkpoints
from tests.cli.support import optkit
from tests.conftest import small_classifier
from tests.data.pictures import huge_jpeg, huge_png, jpeg, photo, turned

TINY = (
    "--arch", "test_efficientnet", "--weights", "scratch", "--size", "32", "--precision", "fp32",
    "--batch-size", "4",
)  # fmt: skip


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
    scratch = Path("runs/.store/scratch")  # of a training that may go on; its folders may be made, too
    return {
        path: content
        for path, content in found.items()
        if path not in store and (content is not None or not path.is_relative_to(scratch))
    }


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


def test_one_class_only(here: Path) -> None:
    for path in (photos(here / "photos") / "dog").iterdir():
        path.unlink()
    (here / "photos" / "dog").rmdir()
    command = ["finetune", "--data", "photos"]
    assert_refused(
        command, 4, "'photos' has one class only: 'cat'", "needs at least two", "one sub-folder per class"
    )


def test_validation_of_classes_that_training_lacks(here: Path) -> None:
    photos(here / "photos" / "train")
    photos(here / "photos" / "val")
    (here / "photos" / "val" / "cat").rename(here / "photos" / "val" / "fox")
    assert_refused(["finetune", "--data", "photos"], 4, "classes that training lacks: fox")
    apart = ["finetune", "--data", "photos/train", "--val", "photos/val"]
    assert_refused(apart, 4, "classes that training lacks: fox")


BROKEN = {
    "empty.jpg": (b"", "empty file"),
    "huge.png": (huge_png(), "too many pixels"),
    "huge.jpg": (huge_jpeg(), "too many pixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_empty_and_gigantic_images_are_skipped_or_refused(here: Path, name: str) -> None:
    content, reason = BROKEN[name]
    (photos(here / "photos") / "cat" / name).write_bytes(content)
    command = ["finetune", "--data", "photos", *TINY, "--epochs", "1"]
    assert_refused([*command, "--strict"], 4, "1 corrupt image", f"cat/{name} ({reason})", "--strict")
    done = optkit(*command, "--json")
    assert done.code == 0, done.err
    assert f"Skipped 1 corrupt image: cat/{name} ({reason})." in done.json["warnings"]


def test_unusual_images_are_trained_on(here: Path) -> None:
    """A folder of nothing but CMYK, 16-bit, animated and rotated images; --strict would refuse any of them."""
    for name, seed in (("cat", 0), ("dog", 1)):
        folder = here / "odd" / name
        folder.mkdir(parents=True)
        picture, other = photo(48, 40, seed), photo(48, 40, seed + 5)
        (folder / "cmyk.jpg").write_bytes(jpeg(picture.convert("CMYK")))
        Image.fromarray(np.full((40, 48), 20_000 * (1 + seed), np.uint16)).save(folder / "deep.png")
        for kind in ("gif", "png", "webp"):
            picture.save(folder / f"moving_{kind}.{kind}", save_all=True, append_images=[other])
        (folder / "turned.jpg").write_bytes(turned(6, 48, 40))
    done = optkit("finetune", "--data", "odd", "--strict", *TINY, "--epochs", "1", "--json")
    assert done.code == 0, done.err
    assert not [text for text in done.json["warnings"] if "orrupt" in text]


def test_a_learning_rate_that_diverges(here: Path) -> None:
    """It is named, and the last weights that are good can be used."""
    photos(here / "photos")
    phases = "[{unfreeze: head, epochs: 1, lr: 0.001}, {unfreeze: all, epochs: 3, lr: 1.0e+12}]"
    done = optkit("finetune", "--data", "photos", *TINY, "--phases", phases)
    assert done.code == 2
    for text in (
        "diverged in epoch 1",
        "learning rate 1e+12",
        "in phase 2 an lr of 1e+11",
        "weights are kept in",
    ):
        assert text in done.err, text
    assert "Traceback" not in done.err
    assert not Path("runs/finetune").exists()
    (kept,) = Path("runs/.store/scratch").rglob("last_good.safetensors")
    assert str(kept) in done.err
    measured = optkit("evaluate", str(kept), "--data", "photos", "--json")
    assert measured.code == 0, measured.err
    assert measured.json["n"] > 0


def test_divergence_that_batch_normalisation_hides_from_the_loss(here: Path) -> None:
    """The loss of the only epoch is finite; what the network answers afterwards is not."""
    photos(here / "photos")
    options = ("--epochs", "1", "--lr", "1e5", "--batch-size", "8", "--warmup", "0", "--schedule", "constant")
    done = optkit("finetune", "--data", "photos", *TINY, *options)
    assert done.code == 2, done.err
    assert "learning rate 100000" in done.err
    assert "--lr 10000" in done.err
    assert not Path("runs/finetune").exists()


@contextmanager
def files_no_larger_than(size_bytes: int) -> Iterator[None]:
    """Writing more raises what a full disk raises, but for the number of the error."""
    resource = pytest.importorskip("resource", reason="only POSIX systems limit the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize(
    ("options", "size_bytes"),
    [
        (["--epochs", "2"], 20_000),  # the first checkpoint
        (["--phases", "[{unfreeze: head, epochs: 2, lr: 0.01}]"], 2_000),  # the cached features
        (["--epochs", "0"], 100_000),  # the model
    ],
    ids=["checkpoint", "features", "model"],
)
def test_no_space_while_training(here: Path, options: list[str], size_bytes: int) -> None:
    """One error; nothing half-written; with space again the same command goes on and ends."""
    photos(here / "photos")
    command = ["finetune", "--data", "photos", *TINY, *options]
    with files_no_larger_than(size_bytes):
        assert_refused(command, 3, "There is no space to write", "Free some space", "a training goes on")
    assert list(Path("runs/.store/work").iterdir()) == []
    done = optkit(*command)
    assert done.code == 0, done.err
    assert read_artifact(Path("runs/finetune")).manifest.metrics["n"] > 0


def test_no_space_for_a_manifest_and_for_onnx(here: Path) -> None:
    photos(here / "photos")
    with files_no_larger_than(1_000):
        assert_refused(["cost", "b0"], 3, "There is no space to write", "Free some space")
    assert optkit("finetune", "--data", "photos", *TINY, "--epochs", "0").code == 0
    with files_no_larger_than(50_000):
        assert_refused(["export", "runs/finetune"], 3, "There is no space to write", "Free some space")
    assert optkit("export", "runs/finetune").code == 0


def test_a_folder_that_must_not_be_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "runs")

    monkeypatch.setattr(Path, "mkdir", refused)
    assert_refused(["cost", "b0"], 3, "refuses access to 'runs'", "Permission denied", "may write to")


def test_interrupted_training_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of an epoch: exit code 130, and the rest gives the weights of an undisturbed run."""
    command = ["finetune", "--data", "photos", *TINY, "--epochs", "3", "--checkpoint-seconds", "0"]
    saved: list[str] = []
    save = Checkpoints.save

    def interrupting(self: Checkpoints, name: str, state: dict[str, Any]) -> None:
        save(self, name, state)
        saved.append(name)
        if len(saved) == 4:
            signal.raise_signal(signal.SIGINT)  # in this thread, and at once

    states = []
    for name in ("whole", "cut"):
        photos(here / name / "photos")
        monkeypatch.chdir(here / name)
        if name == "cut":
            with monkeypatch.context() as patch:
                patch.setattr(Checkpoints, "save", interrupting)
                done = optkit(*command)
            assert done.code == 130
            assert "start the command again" in done.err
            assert not Path("runs/finetune").exists()
        done = optkit(*command)
        assert done.code == 0, done.err
        assert ("Going on at" in done.err) is (name == "cut")
        states.append(Path("runs/finetune/model.safetensors").read_bytes())
    assert states[0] == states[1]


def test_cost_at_a_size_that_the_model_cannot_take(here: Path) -> None:
    photos(here / "photos")
    assert optkit("finetune", "--data", "photos", *TINY, "--epochs", "0", "--pooling", "flatten").code == 0
    for model in ("runs/finetune", "runs/finetune/model.safetensors"):
        assert_refused(
            ["cost", model, "--size", "64"], 2, "cannot take images of 64 pixels", "Its own size is 32"
        )
