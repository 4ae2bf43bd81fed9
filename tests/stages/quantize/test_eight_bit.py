from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from optkit.core.progress import SilentReporter
from optkit.core.types import Artifact
from optkit.data.base import ImageSet
from optkit.data.config import DataConfig
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.graph.onnx_file import classifier_io, embed_spec, read_onnx, spec_from_metadata
from optkit.graph.qdq_prepare import prepare
from optkit.measure.parity import compare_logits
from optkit.stages.quantize import eight_bit
from optkit.stages.quantize.config import Config
from optkit.stages.quantize.execute import run_model
from optkit.stages.quantize.ladder import rungs
from tests.small_networks import bottleneck_network, residual_network
from tests.stages.quantize.support import spread
from tests.stages.quantize.test_stage import SPEC, quantization, quantize
from tests.stages.support import run_steps

TOO_FEW = "too few to judge by others"


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_data(DataConfig(path="synthetic"), SilentReporter()).train


@pytest.mark.parametrize(
    ("options", "count", "shares"),
    [
        ({"min_sqnr": 1}, 320, (232, 40, 48)),
        ({"min_sqnr": 1}, 16, (12, 2, 2)),
        ({"min_sqnr": 1, "calibrator": "mse"}, 320, (232, 40, 48)),
        ({}, 320, (280, 40, 0)),  # no ladder: nothing is judged
        ({"calibrator": "mse"}, 320, (320, 320, 320)),  # and nothing is chosen
        ({"precision": "fp8", "target": "tensorrt"}, 320, (320, 320, 320)),
    ],
)
def test_no_image_has_two_roles(
    images: ImageSet, options: dict[str, Any], count: int, shares: tuple[int, ...]
) -> None:
    found = eight_bit._split(images.subset(np.arange(count)), Config(**options))
    parts = [set(part.ids) for part in (found.fit, found.choosing, found.held)]
    assert tuple(map(len, parts)) == shares
    if "min_sqnr" in options:
        assert all(not one & other for one, other in combinations(parts, 2))
    assert len(set.union(*parts)) == count


def test_hardly_more_images_than_roles_have_to_do_for_all(images: ImageSet) -> None:
    few = images.subset(np.arange(3))
    found = eight_bit._split(few, Config(min_sqnr=1))
    assert found.fit is found.choosing is found.held
    assert set(found.fit.ids) == set(few.ids)


@pytest.mark.parametrize(("count", "warned"), [(3, True), (16, False)])
def test_too_few_images_to_judge_by_are_warned_of(tmp_path: Path, count: int, warned: bool) -> None:
    """They are learnt, too, as none is set aside."""
    reporter = SilentReporter()
    options = {"rungs": ("rounding", "qat"), "calibration_images": count, "check_images": 16}
    found = quantization(quantize(tmp_path, residual_network(), reporter, **options))
    assert any(TOO_FEW in text for text in reporter.warnings) is warned
    assert f"on {320 if warned else 316} images" in found["ladder"][2]["note"]


def test_a_graph_of_fixed_batch_size_climbs_every_rung(tmp_path: Path) -> None:
    """21 images, which no batch of 4 divides."""
    output = quantize(tmp_path, residual_network(batch=4), rungs=tuple(rungs(Config())), check_images=10)
    found = quantization(output)
    assert [entry["rung"] for entry in found["ladder"]] == ["calibration", *map(spoken, rungs(Config()))]
    assert all(entry["sqnr_db"] is not None for entry in found["ladder"]), "every rung made a file"
    model = read_onnx(tmp_path / "out" / "model.onnx")
    assert classifier_io(model).batch == 4
    assert spec_from_metadata(model) == output.spec
    assert found["speed"]["fp32_ms"] > 0


def spoken(rung: str) -> str:
    return rung.replace("_", " ")


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A network that calibration alone spoils, and the ladder under a budget that no INT8 file of it can keep."""
    folder = tmp_path_factory.mktemp("climbed")
    model = spread(prepare(bottleneck_network()))
    embed_spec(model, SPEC)
    onnx.save(model, folder / "model.onnx")
    steps = {
        "onnx": {"stage": "load", "path": str(folder / "model.onnx")},
        "plain": {"stage": "quantize", "model": "onnx", "calibration_images": 96},
        "int8": {
            "stage": "quantize",
            "model": "onnx",
            "calibration_images": 96,
            "min_sqnr": 99,
            "allow_slower": True,
        },
    }
    return run_steps(folder, steps)


def on_validation_images(made: dict[str, Artifact], name: str) -> float:
    fp32, int8 = (read_onnx(made[one].file) for one in ("onnx", name))
    val = load_data(DataConfig(path="synthetic"), SilentReporter()).val
    pixels = [batch.pixels for batch in batches(val, made["onnx"].spec.preprocess, 40, SilentReporter())]
    return compare_logits(*(run_model(one, classifier_io(one), pixels) for one in (fp32, int8))).sqnr_db


def test_the_default_ladder_ends_higher_than_it_began(climbed: dict[str, Artifact]) -> None:
    entries = quantization(climbed["int8"].manifest)["ladder"]
    names = [entry["rung"] for entry in entries]
    assert list(dict.fromkeys(names)) == ["calibration", *map(spoken, rungs(Config()))]
    kept = [entry["sqnr_db"] for entry in entries if entry["kept"]]
    assert all(after > before for before, after in pairwise(kept))
    assert kept[1] > kept[0] + 20, "equalisation is what it needs"
    assert kept[-1] > kept[1] + 3, "and the rest refines it"
    assert on_validation_images(climbed, "int8") > on_validation_images(climbed, "plain") + 25


def test_the_manifest_tells_what_the_file_does(climbed: dict[str, Artifact]) -> None:
    """The figures of the last rung that was kept are those of the file."""
    found = quantization(climbed["int8"].manifest)
    assert found["validation"]["sqnr_db"] == pytest.approx(on_validation_images(climbed, "int8"), abs=0.05)
    assert [entry["validation"] for entry in found["ladder"] if entry["kept"]][-1] == found["validation"]
    assert found["budget"] == {"max_drop": None, "min_agreement": None, "min_sqnr": 99, "held": False}
    assert any("BUDGET DOES NOT HOLD" in text for text in climbed["int8"].manifest.warnings)
    assert found["speed"]["verdict"] in ("faster", "slower", "cannot tell")
    harm = [one["sqnr_db"] for one in found["sensitivity"]]
    assert harm == sorted(harm)
    assert len(harm) >= sum(found["quantized"].values()) > 0
