"""Data sources, splits and the images that are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from optkit.core.errors import InputError, UsageError
from optkit.core.progress import SilentReporter
from optkit.data.config import DataConfig
from optkit.data.load import check_classes, load_data


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


def test_a_model_is_measured_on_images_it_was_not_trained_on(photos: Path) -> None:
    data = load(photos)
    assert data.evaluation_images({None}).ids == data.whole.ids
    assert data.evaluation_images({data.digest}).ids == data.val.ids


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
    ],
)
def test_a_wrong_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x.csv")


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
