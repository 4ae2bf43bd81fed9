from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from optkit.core.errors import InputError
from optkit.stages.evaluate.config import Config as EvaluateConfig
from optkit.stages.evaluate.stage import run as evaluate
from optkit.stages.predict.config import Config
from optkit.stages.predict.stage import run


def predict(context, artifact, images, **options):
    config = Config(images=str(images), **options)
    config.check()
    output = run(config, {"model": {"m": artifact}}, context)
    json.dumps(output.details, allow_nan=False)
    return output


def test_one_image(context, colour_model, colour_photos):
    output = predict(context, colour_model(), colour_photos / "val" / "green" / "0.png")
    (found,) = output.details["predictions"]
    assert found["file"].endswith("0.png")
    assert found["top"][0]["class"] == "green"
    assert sum(entry["p"] for entry in found["top"]) == pytest.approx(1)
    assert [entry["p"] for entry in found["top"]] == sorted((e["p"] for e in found["top"]), reverse=True)


def test_a_folder_in_more_than_one_batch(context, colour_model, colour_photos):
    (colour_photos / "val" / "notes.txt").write_text("not an image")
    output = predict(context, colour_model(batch=4), colour_photos / "val", top_k=1)
    found = output.details["predictions"]
    assert len(found) == 30
    assert all(entry["top"][0]["class"] in entry["file"] for entry in found)
    assert all(len(entry["top"]) == 1 for entry in found)


def test_a_pattern(context, colour_model, colour_photos):
    output = predict(context, colour_model(), colour_photos / "val" / "*" / "1.png")
    assert [entry["top"][0]["class"] for entry in output.details["predictions"]] == ["blue", "green", "red"]


def test_a_pattern_searches_every_sub_folder(context, colour_model, colour_photos):
    output = predict(context, colour_model(), colour_photos / "**" / "*.png")
    assert len(output.details["predictions"]) == 60


def test_answers_as_a_table(context, colour_model, colour_photos):
    output = predict(context, colour_model(), colour_photos / "val" / "red", top_k=2)
    with (context.workdir / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["file", "class_1", "p_1", "class_2", "p_2"]
    for row, answer in zip(rows, output.details["predictions"], strict=True):
        assert row["file"] == answer["file"]
        assert [row["class_1"], row["class_2"]] == [top["class"] for top in answer["top"]]
        assert float(row["p_1"]) == pytest.approx(answer["top"][0]["p"], abs=1e-6)


def test_corrupt_images_are_listed_with_the_reason(context, colour_model, colour_photos):
    folder = colour_photos / "val" / "red"
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    (folder / "4.png").write_bytes(b"")
    output = predict(context, colour_model(), folder)
    assert output.metrics == {"n": 8, "skipped": 2}
    assert {entry["file"][-5:] for entry in output.details["skipped"]} == {"3.png", "4.png"}
    assert all(entry["reason"] for entry in output.details["skipped"])
    assert context.reporter.warnings


def test_an_image_gets_the_answer_that_evaluate_gives_it(context, colour_model, large_photos):
    model = colour_model()
    found = predict(context, model, large_photos / "green").details["predictions"][0]["top"][0]
    config = EvaluateConfig(data=str(large_photos), threads=1)
    (mistake,) = evaluate(config, {"model": {"m": model}}, context).details["mistakes"]
    assert (found["class"], found["p"]) == (mistake["prediction"], pytest.approx(mistake["p"], abs=1e-12))


def test_hidden_folders_and_other_files_are_neither_read_nor_in_the_key(tmp_path):
    photo, hidden = tmp_path / "a.png", tmp_path / ".thumbnails" / "a.png"
    hidden.parent.mkdir()
    for path in (photo, hidden):
        Image.new("RGB", (8, 8), "red").save(path)
    config = Config(images=str(tmp_path))
    before = config.canonical()
    assert [name for name, _ in before["images"]] == [str(photo)]
    (tmp_path / "film.mp4").write_bytes(b"x")
    hidden.write_bytes(b"x")
    assert config.canonical() == before


def test_only_corrupt_images_is_an_error(context, colour_model, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"text")
    with pytest.raises(InputError, match="None of the images"):
        predict(context, colour_model(), tmp_path / "a.jpg")


def test_a_folder_without_images_is_an_error(context, colour_model, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    with pytest.raises(InputError, match="no image"):
        predict(context, colour_model(), folder)


def test_what_does_not_exist_is_found_before_any_work(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.jpg"):
        Config(images=str(tmp_path / "nothing.jpg")).check()


def test_the_key_follows_the_content(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    before = Config(images=str(path)).canonical()
    Image.new("RGB", (8, 8), "blue").save(path)
    assert Config(images=str(path)).canonical() != before
