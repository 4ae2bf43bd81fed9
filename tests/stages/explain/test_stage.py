from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from optkit.core.errors import InputError, UsageError
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Preprocess
from optkit.models.build import build
from optkit.models.checkpoint import save_checkpoint
from optkit.stages.evaluate.config import Config as EvaluateConfig
from optkit.stages.evaluate.stage import run as evaluate
from optkit.stages.explain.config import Config
from optkit.stages.explain.stage import run

NAMES = ("red", "green", "blue")
SIZE = 48


@pytest.fixture
def network(tmp_path):
    """`network(seed=0, names=NAMES, widths=None, size=SIZE)`: a checkpoint that looks at things at random."""

    def make(seed=0, names=NAMES, widths=None, size=SIZE, crop_pct=1.0) -> Artifact:
        folder = tmp_path / f"net-{seed}-{''.join(names)}-{bool(widths)}-{size}-{crop_pct}"
        folder.mkdir()
        torch.manual_seed(seed)
        module = build("test_efficientnet", len(names)).eval()
        with torch.no_grad():
            for layer in module.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.running_var.uniform_(0.01, 0.1)
            if widths:  # the last feature map loses channels, as by pruning
                kept = widths["conv_head"]["out_channels"]
                module.conv_head.weight = torch.nn.Parameter(module.conv_head.weight[:kept])
                for name in ("weight", "bias", "running_mean", "running_var"):
                    tensor = getattr(module.bn2, name)[:kept].clone()
                    setattr(module.bn2, name, torch.nn.Parameter(tensor) if "running" not in name else tensor)
                module.classifier.weight = torch.nn.Parameter(module.classifier.weight[:, :kept])
        spec = ModelSpec(
            arch="test_efficientnet",
            num_classes=len(names),
            class_names=names,
            preprocess=Preprocess(size=size, crop_pct=crop_pct),
            pruning=widths,
        )
        save_checkpoint(module, spec, folder / Format.TORCH.filename)
        return Artifact(
            folder.name, folder, Manifest(stage="finetune", key=folder.name, format=Format.TORCH, spec=spec)
        )

    return make


def explain(context, *artifacts, **options):
    config = Config(**{"threads": 1, "count": 6, **options})
    config.check()
    roles = {"model": {"first": artifacts[0]}}
    if len(artifacts) > 1:
        roles["other"] = {"second": artifacts[1]}
    output = run(config, roles, context)
    json.dumps([output.metrics, output.details], allow_nan=False)
    return output


def pictures(context, output) -> list[bytes]:
    return [(context.workdir / row["image"]).read_bytes() for row in output.details["maps"]]


def test_pictures_of_photos_and_maps(context, network, colour_photos):
    output = explain(context, network(), data=str(colour_photos))
    assert output.metrics == {"n": 6}
    assert output.details["layers"] == ["bn2"]
    rows = output.details["maps"]
    assert [row["image"] for row in rows] == [f"maps/0{index}.png" for index in range(6)]
    for row in rows:
        assert row["label"] in row["file"]
        assert row["prediction"] in NAMES
        assert 1 / 3 <= row["p"] <= 1
        with Image.open(context.workdir / row["image"]) as picture:
            assert picture.size == (452, 224)
            pixels = np.asarray(picture)
        assert pixels[:, :224].mean(axis=(0, 1)).argmax() == NAMES.index(row["label"])  # the photo itself
    assert [row["label"] != row["prediction"] for row in rows[:3]] == [
        True
    ] * 3  # of three classes it knows none
    assert len(set(pictures(context, output))) == 6


def test_count_and_seed(context, network, colour_photos):
    model = network()
    first, same, other = (
        explain(context, model, data=str(colour_photos), count=3, seed=seed).details["maps"]
        for seed in (0, 0, 1)
    )
    assert len(first) == 3
    assert first == same
    assert [row["file"] for row in first] != [row["file"] for row in other]


def test_the_layer_changes_the_map(context, network, colour_photos):
    model = network()
    last = pictures(context, explain(context, model, data=str(colour_photos)))
    early = explain(context, model, data=str(colour_photos), layer="blocks.1")
    assert early.details["layers"] == ["blocks.1"]
    assert all(one != other for one, other in zip(last, pictures(context, early), strict=True))


def test_an_unknown_layer(context, network, colour_photos):
    with pytest.raises(UsageError, match="no layer 'features'"):
        explain(context, network(), data=str(colour_photos), layer="features")


def test_the_target_changes_the_maps_of_mistakes_only(context, network, colour_photos):
    model = network()
    predicted = explain(context, model, data=str(colour_photos))
    before = pictures(context, predicted)
    after = pictures(context, explain(context, model, data=str(colour_photos), target="label"))
    wrong = [row["label"] != row["prediction"] for row in predicted.details["maps"]]
    assert [one != other for one, other in zip(before, after, strict=True)] == wrong
    assert any(wrong)


def test_images_without_labels(context, network, colour_photos):
    output = explain(
        context,
        network(),
        images=[str(colour_photos / "val" / "red"), str(colour_photos / "**" / "1.png")],
        count=20,
    )
    assert output.metrics["n"] == 15
    assert {row["label"] for row in output.details["maps"]} == {None}
    assert (
        len(explain(context, network(1), images=str(colour_photos / "val" / "red"), count=2).details["maps"])
        == 2
    )


def test_a_corrupt_image_is_left_out(context, network, colour_photos):
    folder = colour_photos / "val" / "red"
    for index in range(9):
        (folder / f"{index}.png").write_bytes(b"no image")
    output = explain(context, network(), images=str(folder), count=10)
    assert [Path(row["file"]).name for row in output.details["maps"]] == ["9.png"]
    assert any("0.png" in warning for warning in context.reporter.warnings)
    (folder / "9.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="None of the images"):
        explain(context, network(1), images=str(folder), count=10)


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_a_model_agrees_with_itself(context, network, colour_photos, method):
    output = explain(
        context, network(), network(crop_pct=0.6), data=str(colour_photos), method=method, count=4
    )
    assert any("crop" in warning for warning in context.reporter.warnings)
    assert output.metrics["pearson"] < 1
    model = network(1)
    output = explain(context, model, model, data=str(colour_photos), method=method, count=4)
    for name in ("pearson", "spearman", "iou", "prediction_agreement"):
        assert output.metrics[name] == pytest.approx(1)
        low, high = output.metrics[f"{name}_interval"]
        assert low - 1e-9 <= output.metrics[name] <= high + 1e-9
    (row, *_) = output.details["maps"]
    assert (row["prediction"], row["p"]) == (row["prediction_other"], pytest.approx(row["p_other"]))
    with Image.open(context.workdir / row["image"]) as picture:
        assert picture.size == (680, 224)


def test_agreement_is_of_images_drawn_at_random_and_not_of_the_mistakes(context, colour_model, colour_photos):
    """One in six is a mistake: half of the pictures are, and the agreement is still that of all images."""
    for index in range(5):  # of the blue photos, half lie in "red"
        target = colour_photos / "val" / "red" / f"{index}.png"
        target.write_bytes((colour_photos / "val" / "blue" / f"{index}.png").read_bytes())
    first = colour_model()
    swapped = first.spec.model_copy(update={"class_names": ("green", "red", "blue")})
    other = Artifact(first.key, first.path, first.manifest.model_copy(update={"spec": swapped}))
    measured, shown = [], []
    for seed in range(5):
        options = {"data": str(colour_photos), "method": "occlusion", "patches": 4, "seed": seed}
        found = explain(context, first, other, count=10, **options)
        rows = found.details["maps"]
        assert found.metrics["agreement_n"] == found.metrics["n"] == len(rows) == 10
        assert sum(row["label"] != row["prediction"] for row in rows) == 5
        shown.append(np.mean([row["prediction"] == row["prediction_other"] for row in rows]))
        measured.append(found.metrics["prediction_agreement"])
    assert np.mean(shown) > 0.65
    assert 0.35 < np.mean(measured) < 0.6  # the two agree on what is blue: 15 of 30


def test_a_random_network_agrees_less(context, network, colour_photos):
    found = explain(context, network(), network(5), data=str(colour_photos)).metrics
    assert found["pearson"] < 0.8
    assert found["iou"] < 0.8
    low, high = found["pearson_interval"]
    assert low < found["pearson"] < high


def test_a_pruned_network_of_another_class_order_and_size(context, network, colour_photos):
    widths = {
        "conv_head": {"in_channels": 64, "out_channels": 100, "groups": 1},
        "bn2": {"num_features": 100},
        "classifier": {"in_features": 100, "out_features": 3},
    }
    dense = network(names=("blue", "red", "green"))
    widths["conv_head"]["in_channels"] = build("test_efficientnet", 3).conv_head.in_channels
    pruned = network(widths=widths, size=64)
    found = explain(context, dense, pruned, data=str(colour_photos))
    assert found.details["layers"] == ["bn2", "bn2"]
    assert -1 < found.metrics["pearson"] < 1


def test_an_onnx_model_by_occlusion(context, colour_model, network, colour_photos):
    half = colour_photos / "half.png"
    pixels = np.full((40, 40, 3), 128, np.uint8)
    pixels[20:, 20:] = (250, 100, 100)
    Image.fromarray(pixels).save(half)
    output = explain(context, colour_model(batch=3), images=str(half), method="occlusion")
    (row,) = output.details["maps"]
    assert row["prediction"] == "red"
    with Image.open(context.workdir / row["image"]) as picture:
        overlay = np.asarray(picture)[:, 228:].astype(int)
    redness = overlay[..., 0] - overlay[..., 2]
    assert redness[112:, 112:].mean() > redness[:112, :112].mean() + 50
    both = explain(context, colour_model(), network(), data=str(colour_photos), method="occlusion", count=2)
    assert 0 <= both.metrics["prediction_agreement"] <= 1


def test_patches_change_the_map(context, colour_model, colour_photos):
    coarse, fine = (
        pictures(
            context, explain(context, model, data=str(colour_photos), method="occlusion", patches=patches)
        )
        for model, patches in ((colour_model(), 4), (colour_model(batch=4), 8))
    )
    assert coarse != fine


def test_gradients_of_an_onnx_model_are_refused_with_the_way_out(
    context, network, colour_model, colour_photos
):
    for artifacts in ((colour_model(),), (network(), colour_model(batch=2))):
        with pytest.raises(UsageError, match="gradients") as caught:
            explain(context, *artifacts, data=str(colour_photos))
        assert "--method occlusion" in caught.value.hint


def test_models_of_different_classes(context, network, colour_photos):
    with pytest.raises(UsageError, match="different classes") as caught:
        explain(context, network(), network(names=("red", "green")), data=str(colour_photos))
    assert "3 (red, green, blue), and 2 (red, green)" in caught.value.why


def test_a_chosen_runtime_is_used(context, network, colour_photos):
    with pytest.raises(UsageError, match="computes nothing"):
        explain(context, network(), data=str(colour_photos), runtime="null")


def test_threads(context, colour_model, colour_photos):
    output = explain(context, colour_model(), data=str(colour_photos), method="occlusion", threads=2, count=1)
    assert output.details["facts"][0]["threads"] == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "needs images"),
        ({"images": ("nothing*.jpg",)}, "No file matches"),
        ({"data": "synthetic", "layer": "bn2", "method": "occlusion"}, "nothing to occlusion"),
        ({"data": "synthetic", "patches": 8}, "nothing to Grad-CAM"),
        ({"data": "synthetic", "images": (__file__,)}, "one place"),
        ({"data": "synthetic", "runtime": "opnvino"}, "opnvino"),
    ],
)
def test_what_is_wrong_is_found_before_any_work(options, complaint):
    with pytest.raises((UsageError, InputError), match=complaint):
        Config(**options).check()


def test_unlabelled_images_have_no_true_class(colour_photos):
    with pytest.raises(UsageError, match="no true class"):
        Config(images=str(colour_photos), target="label").check()


def test_a_photo_is_seen_as_evaluate_sees_it(context, colour_model, large_photos):
    model = colour_model()
    explained = explain(context, model, images=str(large_photos), method="occlusion", patches=4, count=2)
    config = EvaluateConfig(data=str(large_photos), threads=1)
    evaluated = evaluate(config, {"model": {"m": model}}, context)
    rows = {Path(row["file"]).name: row["p"] for row in explained.details["maps"]}
    (mistake,) = evaluated.details["mistakes"]
    assert rows[Path(mistake["file"]).name] == pytest.approx(mistake["p"], abs=1e-12)


def test_the_key_follows_the_content_of_images(colour_photos):
    config = Config(images=str(colour_photos / "val"))
    before = config.canonical()
    Image.new("RGB", (8, 8)).save(colour_photos / "val" / "red" / "0.png")
    assert config.canonical() != before
