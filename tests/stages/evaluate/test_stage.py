from __future__ import annotations

import json

import pytest
from PIL import Image

from optkit.core.errors import UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import Artifact
from optkit.data.config import DataConfig
from optkit.data.load import load_data
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
        "top5_interval",
        "loss_interval",
        "f1_interval",
        "precision_interval",
        "recall_interval",
        "ece_interval",
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
    assert output.details["confusions"] == output.details["mistakes"] == []


def test_every_figure_lies_in_its_interval_which_follows_the_seed(context, colour_model, colour_photos):
    model = colour_model()
    for index in range(5):  # half of what lies in "green" is red
        red = colour_photos / "val" / "red" / f"{index}.png"
        (colour_photos / "val" / "green" / f"{index}.png").write_bytes(red.read_bytes())
    found, other = (evaluate(context, model, data=str(colour_photos), seed=seed).metrics for seed in (0, 1))
    for name in ("top1", "precision", "recall", "f1", "ece", "loss"):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high, name
    assert found["top5_interval"] is None  # of three classes
    assert found["f1_interval"] != other["f1_interval"]
    assert found["f1"] == other["f1"]


def test_mistakes_are_shown_the_worst_first(context, colour_model, colour_photos):
    """One photo lies in the wrong folder and is clearly red, another one is nearly grey."""
    red, green = colour_photos / "val" / "red", colour_photos / "val" / "green"
    Image.new("RGB", (400, 200), (255, 0, 0)).save(green / "0.png")
    Image.new("RGB", (20, 24), (90, 100, 80)).save(red / "0.png")
    output = evaluate(context, colour_model(), data=str(colour_photos))
    first, second = output.details["mistakes"]
    assert (first["label"], first["prediction"], first["image"]) == ("green", "red", "mistakes/00.jpg")
    assert (second["label"], second["prediction"]) == ("red", "green")
    assert first["p"] > second["p"] > 1 / 3
    assert first["file"].endswith("green/0.png")
    with Image.open(context.workdir / first["image"]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (160, 80))
        assert picture.getpixel((80, 40))[0] > 200
    confusions = [(row["label"], row["prediction"], row["n"]) for row in output.details["confusions"]]
    assert sorted(confusions) == [("green", "red", 1), ("red", "green", 1)]


def test_twelve_mistakes_are_enough(context, colour_model, colour_photos):
    for index in range(10):
        for target in ("green", "blue"):
            source = colour_photos / "val" / "red" / f"{index}.png"
            (colour_photos / "val" / target / f"{index}.png").write_bytes(source.read_bytes())
    output = evaluate(context, colour_model(), data=str(colour_photos))
    assert len(output.details["mistakes"]) == len(list((context.workdir / "mistakes").iterdir())) == 12
    assert [row["n"] for row in output.details["confusions"]] == [10, 10]
    assert all(row["prediction"] == "red" for row in output.details["confusions"])


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


def test_training_images_of_the_model_are_warned_of(context, colour_model, colour_photos):
    model = colour_model()
    evaluate(context, model, data=str(colour_photos), split="train")
    assert context.reporter.warnings == []
    data = load_data(DataConfig(path=str(colour_photos)), SilentReporter())
    spec = model.spec.also_trained_on(data.trained_on())
    trained = Artifact(model.key, model.path, model.manifest.model_copy(update={"spec": spec}))
    evaluate(context, trained, data=str(colour_photos), split="train")
    assert any("TRAINED ON THESE IMAGES" in warning for warning in context.reporter.warnings)


def test_the_runtime_is_named_also_where_it_was_not_chosen(context, colour_model, colour_photos):
    model = colour_model()
    for chosen, named in ((None, "onnxruntime"), ("openvino", "openvino")):
        if chosen:
            pytest.importorskip("openvino")
        output = evaluate(context, model, data=str(colour_photos), runtime=chosen)
        assert (output.details["runtime"], output.metrics["top1"]) == (named, 1.0)


def test_a_chosen_runtime_is_used(context, colour_model, colour_photos):
    """Seen by its refusal: the null runtime's answers are not the model's."""
    with pytest.raises(UsageError, match="computes nothing"):
        evaluate(context, colour_model(), data=str(colour_photos), runtime="null")


def test_unknown_runtime():
    with pytest.raises(UsageError, match="opnvino"):
        Config(runtime="opnvino").check()
