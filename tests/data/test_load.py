"""Data sources, splits and the images that are left out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from optkit.core.errors import InputError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import ModelSpec, Preprocess, TrainedOn
from optkit.data.base import Dataset
from optkit.data.config import DataConfig
from optkit.data.load import check_classes, load_data, warn_of_imbalance
from optkit.data.loading import batches


def photo(path: Path, size: tuple[int, int] = (20, 16), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/<cat|dog>/<0…9>.jpg."""
    for name in ("cat", "dog"):
        for index in range(10):
            photo(tmp_path / "photos" / name / f"{index}.jpg", seed=index)
    return tmp_path / "photos"


def load(path: Path | str, **options: object):
    return load_data(DataConfig(path=str(path), **options), SilentReporter())


def test_a_flat_folder_is_split_by_class_and_always_alike(photos: Path) -> None:
    data = load(photos, val_fraction=0.3)
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (14, 6)
    assert np.bincount(data.val.labels).tolist() == [3, 3]
    assert not set(data.train.ids) & set(data.val.ids)
    assert load(photos, val_fraction=0.3).val.ids == data.val.ids


def test_train_and_val_folders_are_kept_apart(tmp_path: Path) -> None:
    for share, count in (("train", 4), ("val", 2)):
        for name in ("a", "b"):
            for index in range(count):
                photo(tmp_path / share / name / f"{index}.png")
    data = load(tmp_path)
    assert (len(data.train), len(data.val), data.whole) == (8, 4, None)
    assert data.train.ids[0] == "train/a/0.png"


def test_a_larger_fraction_holds_out_the_same_images_and_more(photos: Path) -> None:
    few, many = (set(load(photos, val_fraction=fraction).val.ids) for fraction in (0.2, 0.5))
    assert few < many
    assert len(load(photos, val_fraction=0.97).train) == 2  # one of every class remains


def measured(data: Dataset, *trained: TrainedOn) -> tuple[set[str], list[str]]:
    reporter = SilentReporter()
    return set(data.evaluation_images(trained, reporter).ids), reporter.warnings


def test_a_model_is_measured_on_images_it_was_not_trained_on(photos: Path) -> None:
    data = load(photos)
    assert measured(data) == (set(data.whole.ids), [])
    assert measured(data, TrainedOn(sample=("ff",), boundaries={"cat": "0"})) == (set(data.whole.ids), [])
    assert measured(data, data.trained_on()) == (set(data.val.ids), [])
    other = load(photos, val_fraction=0.4)
    assert measured(data, other.trained_on(), data.trained_on()) == (set(data.val.ids), [])
    assert measured(other, data.trained_on()) == (set(data.val.ids), [])
    assert data.trained_on() == load(photos).trained_on()


def test_added_photos_bring_no_trained_image_into_the_measurement(photos: Path) -> None:
    before = load(photos)
    for name in ("cat", "dog"):
        for index in range(30):
            photo(photos / name / f"new-{index}.jpg", seed=100 + index)
    found, warnings = measured(load(photos), before.trained_on())
    assert not found & set(before.train.ids)
    assert found >= set(before.val.ids)
    assert any("new-" in name for name in found)
    assert warnings == []


def test_the_same_photos_in_a_table_are_recognised(photos: Path) -> None:
    before = load(photos)
    names = [f"{name}/{index}.jpg" for name in ("cat", "dog") for index in range(10)]
    (photos / "list.csv").write_text("path,label\n" + "\n".join(f"{name},{name[:3]}" for name in names))
    assert measured(load(photos / "list.csv"), before.trained_on()) == (set(before.val.ids), [])


def test_images_that_a_model_saw_are_warned_of(photos: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(3):
            photo(tmp_path / "other" / name / f"{index}.png", seed=50 + index)
    with_val = load(photos, val=str(tmp_path / "other"))
    assert measured(with_val, with_val.trained_on()) == (set(with_val.val.ids), [])
    found, warnings = measured(load(photos), with_val.trained_on())
    assert len(found) == 20
    assert "TRAINED ON THESE IMAGES" in warnings[0]
    swapped = load(tmp_path / "other", val=str(photos))
    assert "TRAINED ON THESE IMAGES" in measured(swapped, with_val.trained_on())[1][0]


def test_only_trained_images_are_measured_with_a_warning(photos: Path) -> None:
    before = load(photos)
    rows = [f"{name},{name[:3]}" for name in before.train.ids]
    (photos / "list.csv").write_text("path,label\n" + "\n".join(rows))
    found, warnings = measured(load(photos / "list.csv"), before.trained_on())
    assert found == set(before.train.ids)
    assert len(warnings) == 1


def test_a_folder_of_validation_images_alone(photos: Path) -> None:
    photos.rename(photos.parent / "val")
    data = load(photos.parent)
    assert data.class_names == ("cat", "dog")
    assert len(data.whole) == 20


def test_a_class_may_be_called_valid(photos: Path) -> None:
    (photos / "cat").rename(photos / "valid")
    assert load(photos).class_names == ("dog", "valid")


def test_csv_paths_are_relative_to_the_file_and_numbers_sort_as_numbers(photos: Path) -> None:
    table = photos.parent / "list.csv"
    lines = [
        f"photos/{name}/{index}.jpg,{label}"
        for name, label in (("cat", 10), ("dog", 9))
        for index in range(5)
    ]
    table.write_text("path,label\n" + "\n".join(lines))
    data = load(table)
    assert data.class_names == ("9", "10")
    assert data.whole.open_image(0).size == (20, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na,b", "lacks the columns"),
        ("path,label\n", "lists no image"),
        ("path,label\nnope.jpg,a", "None of the 1 images"),
        ("path,label\na.jpg,a\nb.jpg,\n", "no label in line 3"),
        ("path,label\na.jpg,a\nb.jpg\n", "no label in line 3"),
        ("path,label\n,a\n", "no path in line 2"),
    ],
)
def test_a_wrong_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x.csv")


def test_a_class_that_is_lost_is_named(photos: Path) -> None:
    table = photos / "list.csv"
    table.write_text("path,label\ncat/0.jpg,cat\ndog/0.jpg,dog\nnope.jpg,wolf\n")
    with pytest.raises(InputError, match="No image of the class 'wolf'") as caught:
        load(table)
    assert "nope.jpg: missing" in caught.value.why


def break_photos(photos: Path) -> None:
    (photos / "cat" / "empty.jpg").write_bytes(b"")
    (photos / "cat" / "text.png").write_text("I am not an image")
    whole = photo(photos / "dog" / "whole.jpg", (200, 200)).read_bytes()
    (photos / "dog" / "half.jpg").write_bytes(whole[: len(whole) // 2])


def test_corrupt_images_are_counted_named_and_skipped(photos: Path) -> None:
    break_photos(photos)
    reporter = SilentReporter()
    data = load_data(DataConfig(path=str(photos)), reporter)
    assert {entry["file"]: entry["reason"] for entry in data.summary()["corrupt"]} == {
        "cat/empty.jpg": "empty file",
        "cat/text.png": "not an image",
        "dog/half.jpg": "truncated JPEG",
    }
    assert len(data.whole) == 21
    assert "3 corrupt images" in reporter.warnings[0]
    assert "half.jpg" in reporter.warnings[0]


def test_strict_refuses_corrupt_images(photos: Path) -> None:
    break_photos(photos)
    with pytest.raises(InputError, match="3 corrupt images") as caught:
        load(photos, strict=True)
    assert "--strict" in caught.value.why


def cut_png(photos: Path) -> Path:
    path = photo(photos / "cat" / "cut.png", (200, 200))
    path.write_bytes(path.read_bytes()[:2000])
    return path


def test_strict_finds_what_only_decoding_shows(photos: Path) -> None:
    cut_png(photos)
    assert len(load(photos).whole) == 21
    with pytest.raises(InputError, match=r"1 corrupt image: cat/cut.png"):
        load(photos, strict=True)


def test_strict_refuses_an_image_that_breaks_later(photos: Path) -> None:
    data = load(photos, strict=True)
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="1 corrupt image"):
        list(batches(data.train, Preprocess(size=8), 2, SilentReporter()))


def test_endings_that_are_not_read_are_named(photos: Path) -> None:
    (photos / "phone").mkdir()
    (photos / "phone" / "1.HEIC").write_bytes(b"x")
    with pytest.raises(InputError, match="is empty") as caught:
        load(photos)
    assert ".heic" in caught.value.why


def test_empty_class_one_class_and_no_class(photos: Path, tmp_path: Path) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(InputError, match=r"class folder .*empty.* is empty"):
        load(photos)
    photo(tmp_path / "one" / "cat" / "0.jpg")
    with pytest.raises(InputError, match="one class only"):
        load(tmp_path / "one")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no class folders"):
        load(tmp_path / "none")


def test_validation_with_unknown_classes_is_refused(photos: Path, tmp_path: Path) -> None:
    for name in ("cat", "wolf"):
        photo(tmp_path / "other" / name / "0.jpg")
    with pytest.raises(InputError, match=r"training lacks: wolf"):
        load(photos, val=str(tmp_path / "other"))


def test_validation_may_lack_classes(photos: Path, tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        photo(tmp_path / "other" / name / "0.jpg")
    data = load(photos, val=str(tmp_path / "other"))
    assert (len(data.train), len(data.val)) == (20, 2)


@pytest.mark.parametrize(("name", "classes"), [("digits", 10), ("synthetic", 4)])
def test_built_in_sets(name: str, classes: int) -> None:
    data = load(name)
    assert len(data.class_names) == classes
    assert data.listing.native_size
    assert not data.listing.flip
    assert data.val.open_image(0).mode == "RGB"


def test_check_classes(photos: Path) -> None:
    data = load(photos)
    check_classes(("cat", "dog"), data)
    with pytest.raises(UsageError, match="different classes"):
        check_classes(("dog", "cat"), data)


def test_config_takes_a_bare_path_and_follows_the_content(photos: Path) -> None:
    config = DataConfig.model_validate(str(photos))
    before = config.canonical()
    photo(photos / "cat" / "new.jpg")
    assert config.canonical() != before
    with pytest.raises(InputError, match="no data folder"):
        DataConfig(path="nowhere/").check()


@pytest.mark.parametrize("name", ["photos.zip", "list.txt", "list.tsv"])
def test_other_files_are_no_data(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"neither a folder nor a \.csv"):
        DataConfig(path=str(tmp_path / name)).check()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        DataConfig(path="digits", val=str(tmp_path / "folder.csv")).check()


def test_runs_and_hidden_folders_are_no_classes(photos: Path) -> None:
    config = DataConfig(path=str(photos))
    before = config.canonical()
    (photos / "runs" / ".store" / "x").mkdir(parents=True)
    (photos / ".git").mkdir()
    photo(photos / "runs" / "plot.png")
    photo(photos / ".git" / "x.png")
    (photos / "notes.txt").write_text("mine")
    assert config.canonical() == before
    assert load(photos).class_names == ("cat", "dog")


def test_a_table_is_fingerprinted_by_the_files_it_lists(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "list.csv"
    table.write_text("path,label\n../photos/cat/0.jpg,cat\n../photos/dog/0.jpg,dog\n")
    config = DataConfig(path=str(table))
    before = config.canonical()
    photo(tmp_path / "tables" / "runs" / "plot.png")
    photo(photos / "cat" / "1.jpg", seed=77)
    assert config.canonical() == before
    photo(photos / "cat" / "0.jpg", (30, 30), seed=78)
    changed = config.canonical()
    assert changed != before
    table.write_text(table.read_text().replace("dog\n", "wolf\n"))
    assert config.canonical() != changed


def test_a_model_remembers_every_set_it_was_trained_on(photos: Path) -> None:
    first, second = load(photos).trained_on(), load("synthetic").trained_on()
    spec = ModelSpec(arch="x", num_classes=2, class_names=("cat", "dog"), preprocess=Preprocess(size=8))
    both = spec.also_trained_on(first).also_trained_on(second).also_trained_on(first)
    assert both.trained_on == (first, second)
    assert ModelSpec.model_validate_json(both.model_dump_json()) == both


def test_the_data_card(photos: Path) -> None:
    break_photos(photos)
    for index in range(8):
        (photos / "cat" / f"{index}.jpg").unlink()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 50)).save(photos / "dog" / "turned.jpg", exif=turned)
    card = load(photos).summary()
    assert (card["classes"], card["train"], card["val"], card["held_out"]) == (2, 11, 3, True)
    assert card["per_class"] == {"cat": [1, 1], "dog": [10, 2]}
    assert card["imbalance"] == 10
    assert card["corrupt_count"] == 3
    assert card["leaks"] is None
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_sizes_and_formats_are_those_of_the_headers(tmp_path: Path) -> None:
    for index, (size, ending) in enumerate((((20, 16), "jpg"), ((40, 30), "png"), ((60, 90), "jpg"))):
        photo(tmp_path / "a" / f"{index}.{ending}", size)
    turned = Image.Exif()
    turned[0x0112] = 6  # shown as 80×10
    (tmp_path / "b").mkdir()
    Image.new("RGB", (10, 80)).save(tmp_path / "b" / "turned.jpg", exif=turned)
    cut = photo(tmp_path / "b" / "cut.png", (500, 400))
    cut.write_bytes(cut.read_bytes()[:5000])  # its header is whole
    assert load(tmp_path).whole.facts() == {
        "sampled": 5,
        "formats": {"JPEG": 3, "PNG": 2},
        "width": {"min": 20, "median": 60, "max": 500},
        "height": {"min": 10, "median": 30, "max": 400},
    }


@pytest.mark.parametrize(
    ("large", "sampling", "warned"), [(60, "natural", True), (60, "balanced", False), (20, "natural", False)]
)
def test_imbalance_is_warned_of_unless_it_is_dealt_with(
    tmp_path: Path, large: int, sampling: str, warned: bool
) -> None:
    for name, count in (("common", large), ("rare", 3)):
        for index in range(count):
            photo(tmp_path / name / f"{index}.png", (4, 4), seed=index)
    reporter = SilentReporter()
    warn_of_imbalance(load(tmp_path), sampling, reporter)
    assert bool(reporter.warnings) == warned
    assert all("'rare'" in text and "--sampling balanced" in text for text in reporter.warnings)


def test_classes_in_val_that_training_lacks(photos: Path, tmp_path: Path) -> None:
    for share, names in (("train", ("cat", "dog")), ("val", ("cat", "wolf"))):
        for name in names:
            photo(tmp_path / "shares" / share / name / "0.jpg")
    with pytest.raises(InputError, match=r"training lacks: wolf"):
        load(tmp_path / "shares")
    (photos / "list.csv").write_text("path,label\ncat/0.jpg,cat\ndog/0.jpg,wolf\n")
    with pytest.raises(InputError, match=r"training lacks: wolf"):
        load(photos, val=str(photos / "list.csv"))


def test_an_empty_class_in_val_and_one_class_in_a_table(photos: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        photo(tmp_path / "shares" / "train" / name / "0.jpg")
        photo(tmp_path / "shares" / "val" / name / "0.jpg")
    (tmp_path / "shares" / "val" / "cat" / "0.jpg").unlink()
    with pytest.raises(InputError, match=r"class folder .*val/cat.* is empty"):
        load(tmp_path / "shares")
    (photos / "list.csv").write_text("path,label\ncat/0.jpg,cat\ncat/1.jpg,cat\n")
    with pytest.raises(InputError, match="one class only: 'cat'"):
        load(photos / "list.csv")


def test_kinds_of_images_that_are_not_read_are_told_of(photos: Path) -> None:
    for index in range(9):
        (photos / "cat" / f"phone{index}.HEIC").write_bytes(b"x")
    (photos / "dog" / "raw.nef").write_bytes(b"x")
    (photos / "dog" / "notes.txt").write_bytes(b"x")
    for ending, kind in ((".jfif", "JPEG"), (".avif", "AVIF")):
        Image.new("RGB", (20, 16)).save(photos / "dog" / f"z{ending}", kind)
    reporter = SilentReporter()
    data = load_data(DataConfig(path=str(photos)), reporter)
    assert len(data.whole) == 22
    assert len(data.listing.corrupt) == 10
    assert data.whole.open_image(21).size == (20, 16)
    assert ".heic is not read" in reporter.warnings[0]
    assert "dog/raw.nef (.nef is not read)" in reporter.warnings[0]  # every reason once before any twice


def odd_name(name: bytes, folder: Path) -> Path:
    try:
        path = folder / os.fsdecode(name)
        path.touch()
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    path.unlink()
    return path


def test_file_names_that_are_not_utf8(photos: Path) -> None:
    good = photo(odd_name(b"caf\xe9.jpg", photos / "cat"), seed=50)
    good.with_name(good.name + ".png").write_bytes(b"x")
    config = DataConfig(path=str(photos))
    before = config.canonical()
    data = load(photos)
    assert r"cat/caf\udce9.jpg" in data.whole.ids
    assert data.listing.corrupt == [{"file": r"cat/caf\udce9.jpg.png", "reason": "not an image"}]
    json.dumps([data.summary(), data.whole.ids], ensure_ascii=False).encode()
    assert data.whole.open_image(data.whole.ids.index(r"cat/caf\udce9.jpg")).size == (20, 16)
    good.unlink()
    assert config.canonical() != before


def test_class_names_that_are_not_utf8_are_refused(photos: Path) -> None:
    photo(odd_name(b"caf\xe9", photos) / "0.jpg")
    with pytest.raises(InputError, match="not valid text") as caught:
        load(photos)
    caught.value.message.encode()


def table(path: Path, *labels: str) -> Path:
    """A CSV with one photo of each label."""
    rows = [
        f"{photo(path.parent / path.stem / f'{label}.png').relative_to(path.parent)},{label}"
        for label in labels
    ]
    path.write_text("\n".join(["path,label", *rows]))
    return path


def load_for(classes: tuple[str, ...], path: Path | str, **options: object) -> Dataset:
    return load_data(DataConfig(path=str(path), **options), SilentReporter(), classes)


def test_the_classes_of_a_model_are_the_labels_of_both_shares(tmp_path: Path) -> None:
    train, val = (
        table(tmp_path / "calib.csv", "dog", "ant"),
        table(tmp_path / "val.csv", "wolf", "cat", "dog"),
    )
    with pytest.raises(InputError, match="training lacks: cat, wolf"):
        load(train, val=str(val))
    classes = ("wolf", "dog", "cat", "bee", "ant")
    data = load_for(classes, train, val=str(val))
    assert data.train.class_names == data.val.class_names == classes
    shown = [{classes[label] for label in share.labels} for share in (data.train, data.val)]
    assert shown == [{"dog", "ant"}, {"wolf", "cat", "dog"}]
    assert [classes[label] for label in data.val.labels] == [Path(name).stem for name in data.val.ids]


def test_a_split_of_few_classes_has_the_labels_of_the_model(photos: Path) -> None:
    data = load_for(("dog", "wolf", "cat"), photos)
    assert (len(data.train), len(data.val)) == (16, 4)
    assert np.bincount(data.val.labels).tolist() == [2, 0, 2]


def test_images_of_other_classes_keep_their_own_labels(photos: Path) -> None:
    assert load_for(("cat", "elk"), photos).class_names == ("cat", "dog")
    assert load_for(("0", "1"), photos).class_names == ("cat", "dog")
    assert load_for(("cat", "dog"), "synthetic").class_names == load("synthetic").class_names
    numbered = load_for(tuple(str(index) for index in range(10)), table(photos / "few.csv", "7", "3"))
    assert sorted(numbered.whole.labels.tolist()) == [3, 7]
