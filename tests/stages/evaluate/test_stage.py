from __future__ import annotations

import json

import pytest

from optkit.core.errors import UsageError
from optkit.stages.evaluate.config import Config
from optkit.stages.evaluate.stage import run


def evaluate(context, artifact, **options):
    config = Config(**{"threads": 1, **options})
    config.check()
    output = run(config, {"model": {"m": artifact}}, context)
    json.dumps([output.metrics, output.details], allow_nan=False)
    return output


def test_metrics_and_details(context, colour_model, colour_photos):
    output = evaluate(context, colour_model(), data=str(colour_photos))
    assert set(output.metrics) == {
        "top1",
        "top5",
        "n",
        "loss",
        "f1",
        "precision",
        "recall",
        "ece",
        "top1_interval",
    }
    assert (output.metrics["top1"], output.metrics["n"], output.metrics["f1"]) == (1.0, 30, 1.0)
    assert output.metrics["top1_interval"][0] < 1.0
    assert 0 < output.metrics["loss"] < 1
    assert output.details["class_names"] == ["red", "green", "blue"]
    assert output.details["confusion"] == [[10, 0, 0], [0, 10, 0], [0, 0, 10]]
    assert output.details["predictions"] == output.details["labels"]
    assert len(output.details["files"]) == 30
    assert [row["n"] for row in output.details["per_class"]] == [10, 10, 10]
    assert output.details["skipped"] == []


def test_the_order_of_the_models_classes_does_not_matter(context, colour_model, colour_photos):
    assert (
        evaluate(context, colour_model(("blue", "red", "green")), data=str(colour_photos)).metrics["top1"]
        == 1
    )


def test_a_model_without_class_names_is_taken_in_order_with_a_warning(context, colour_model, colour_photos):
    # The data's classes are sorted: blue, green, red; the outputs are red, green, blue.
    output = evaluate(context, colour_model(("0", "1", "2")), data=str(colour_photos))
    assert output.metrics["top1"] == pytest.approx(1 / 3)
    assert any("order" in warning for warning in context.reporter.warnings)


def test_a_corrupt_image_is_skipped_and_named(context, colour_model, colour_photos):
    broken = colour_photos / "val" / "red" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    output = evaluate(context, colour_model(), data=str(colour_photos))
    assert output.metrics["n"] == 29
    (skipped,) = output.details["skipped"]
    assert "3.png" in skipped["file"]
    assert skipped["reason"]
    assert any("3.png" in warning for warning in context.reporter.warnings)


def test_training_images(context, colour_model, colour_photos):
    for name in ("green", "blue"):
        (colour_photos / "train" / name / "0.png").unlink()
    assert evaluate(context, colour_model(), data=str(colour_photos), split="train").metrics["n"] == 28


def test_a_chosen_runtime_is_used(context, colour_model, colour_photos):
    """Seen by its refusal: the null runtime's answers are not the model's."""
    with pytest.raises(UsageError, match="computes nothing"):
        evaluate(context, colour_model(), data=str(colour_photos), runtime="null")


def test_unknown_runtime():
    with pytest.raises(UsageError, match="opnvino"):
        Config(runtime="opnvino").check()
