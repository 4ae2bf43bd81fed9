"""A choice of calibration images as a step, shared by quantisations."""

from __future__ import annotations

import json
from pathlib import Path

from optkit.core.types import Format
from tests.conftest import small_classifier
from tests.stages.support import run_steps


def test_one_choice_serves_several_quantisations(tmp_path: Path) -> None:
    small_classifier(tmp_path / "m.onnx", classes=4)
    steps = {
        "model": {"stage": "load", "path": str(tmp_path / "m.onnx")},
        "sample": {"images": 24},
        "cpu": {"stage": "quantize", "model": "model", "calibration": "sample", "calibration_images": 8},
        "gpu": {"stage": "quantize", "model": "model", "calibration": "sample", "target": "tensorrt"},
    }
    made = run_steps(tmp_path, steps)
    assert made["sample"].format is Format.IMAGES
    assert made["sample"].manifest.details["calibration"]["calibration_images"] == 24
    texts = [(made[name].path / "calibration.json").read_text() for name in ("sample", "cpu", "gpu")]
    assert texts[0] == texts[1] == texts[2]
    assert sum(json.loads(texts[0])["per_class"].values()) == 24


def test_every_option_changes_the_choice(tmp_path: Path) -> None:
    options = {
        "base": {},
        "fewer": {"images": 10},
        "seeded": {"seed": 1},
        "other": {"data": {"val_fraction": 0.5}},
    }
    steps = {name: {"stage": "sample", "images": 20, **more} for name, more in options.items()}
    made = run_steps(tmp_path, steps)
    chosen = {
        name: [image["name"] for image in json.loads(made[name].file.read_text())["images"]] for name in made
    }
    assert len(chosen["fewer"]) == 10
    assert len({tuple(names) for names in chosen.values()}) == 4


def test_quantize_makes_the_same_choice_itself(tmp_path: Path) -> None:
    small_classifier(tmp_path / "m.onnx", classes=4)
    steps = {
        "model": {"stage": "load", "path": str(tmp_path / "m.onnx")},
        "sample": {"images": 12},
        "quantize": {"model": "model", "calibration_images": 12},
    }
    made = run_steps(tmp_path, steps)
    assert (made["quantize"].path / "calibration.json").read_text() == made["sample"].file.read_text()
