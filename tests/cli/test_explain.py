from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.support import optkit
from tests.conftest import small_classifier

MODEL_OPTIONS = ("--size", "32", "--class-names", "a,b")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    small_classifier(tmp_path / "m.onnx", classes=2)
    small_classifier(tmp_path / "other.onnx", classes=2, batch=4)
    for name in "ab":
        for index in range(3):
            path = tmp_path / "photos" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 40), 60 + 20 * index).convert("RGB").save(path)
    return tmp_path


def test_two_models_side_by_side(here: Path) -> None:
    done = optkit(
        "explain", "m.onnx", "other.onnx", *MODEL_OPTIONS, "--data", "photos", "--method", "occlusion",
        "--count", "3", "--patches", "4", "--out", "explained",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert sorted(path.name for path in (here / "explained" / "maps").iterdir()) == [
        "00.png",
        "01.png",
        "02.png",
    ]
    for text in ("maps/02.png", "other model", "3 images drawn at random", "same prediction"):
        assert text in done.out
    assert "next: optkit evaluate m.onnx --data photos" in done.err


def test_json_says_where_the_pictures_are(here: Path) -> None:
    done = optkit(
        "explain", "m.onnx", *MODEL_OPTIONS, "--images", "photos/**/0.png", "--method", "occlusion",
        "--patches", "4", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["n"] == 2
    for row in done.json["maps"]:
        assert (Path(done.json["folder"]) / row["image"]).is_file()
        assert row["label"] is None


def test_grad_cam_of_an_onnx_file_names_the_way_out(here: Path) -> None:
    done = optkit("explain", "m.onnx", *MODEL_OPTIONS, "--data", "photos")
    assert done.code == 2
    assert "--method occlusion" in done.err
    assert "Traceback" not in done.err


def test_no_images(here: Path) -> None:
    done = optkit("explain", "m.onnx", *MODEL_OPTIONS)
    assert done.code == 2
    assert "--data photos/" in done.err
