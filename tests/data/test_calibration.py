"""Which images are calibrated with, and how a choice is kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.data import calibration as module
from optkit.data.base import Dataset, Listing
from optkit.data.calibration import CalibrationSet, choose_calibration, read_calibration
from optkit.data.config import DataConfig
from optkit.data.load import load_data
from tests.data.photos import jpeg, write_folder
from tests.data.pictures import image_set
from tests.data.test_leaks import scene


class Notes(SilentReporter):
    """Keeps what is only noted, too."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def info(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ with 2 × 10 images and val/ with 2 × 3, all different."""
    write_folder(tmp_path / "photos" / "train", 10)
    write_folder(tmp_path / "photos" / "val", 3, first=100)
    return tmp_path / "photos"


def opened(folder: Path, **options: object) -> Dataset:
    return load_data(DataConfig(path=str(folder), **options), SilentReporter())


def chosen(folder: Path, count: int = 6, seed: int = 0) -> tuple[CalibrationSet, Notes]:
    notes = Notes()
    return choose_calibration(opened(folder), count, seed, str(folder), notes), notes


def test_images_are_training_images_of_every_class(folder: Path) -> None:
    found, notes = chosen(folder)
    assert Counter(found.images.labels.tolist()) == {0: 3, 1: 3}
    assert all(name.startswith("train/") for name in found.images.ids)
    assert notes.warnings == notes.notes == []
    assert chosen(folder)[0].images.ids == found.images.ids != chosen(folder, seed=1)[0].images.ids
    assert len(chosen(folder, count=100)[0].images) == 20


def test_the_record_says_everything(folder: Path, tmp_path: Path) -> None:
    found, _ = chosen(folder)
    found.write(tmp_path)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert record["source"] == str(folder)
    assert record["seed"] == 0
    assert record["per_class"] == {"cat": 3, "dog": 3}
    assert [image["name"] for image in record["images"]] == list(found.images.ids)
    assert {image["label"] for image in record["images"]} == {"cat", "dog"}
    assert record["digest"] == found.facts()["calibration_digest"]


def test_the_digest_is_of_what_the_images_hold(folder: Path) -> None:
    before, _ = chosen(folder, count=20)
    (folder / "train" / "cat").rename(folder / "train" / "aardvark")
    (folder / "val" / "cat").rename(folder / "val" / "aardvark")
    assert chosen(folder, count=20)[0].digest == before.digest
    (folder / "train" / "dog" / "0010.jpg").write_bytes(jpeg(77))
    assert chosen(folder, count=20)[0].digest != before.digest


def test_drawn_images_have_digests() -> None:
    data = load_data(DataConfig(path="synthetic"), SilentReporter())
    found = choose_calibration(data, 20, 0, "synthetic", SilentReporter())
    assert len(set(found.digests)) == 20


def test_copies_of_validation_images_are_left_out_and_named(folder: Path) -> None:
    first = chosen(folder)[0].images.ids[0]
    data = (folder / first).read_bytes()
    (folder / "val" / "dog" / "copy.jpg").write_bytes(data)
    found, notes = chosen(folder)
    assert first not in found.images.ids
    assert len(found.images) == 6
    (warning,) = notes.warnings
    assert "LEAK: 1 training images" in warning
    assert f"{first} (exact copy of val/dog/copy.jpg)" in warning


def test_near_copies_of_validation_images_are_left_out(folder: Path) -> None:
    first = chosen(folder)[0].images.ids[0]
    scene(5).save(folder / first, quality=92)
    scene(5, side=120).save(folder / "val" / "dog" / "small.jpg", quality=80)
    found, notes = chosen(folder)
    assert first not in found.images.ids
    assert f"{first} (near copy of val/dog/small.jpg)" in notes.warnings[0]


def test_an_exact_copy_is_found_among_any_number_of_validation_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEAR_LIMIT", 1)
    first = chosen(folder)[0].images.ids[0]
    (folder / "val" / "dog" / "copy.jpg").write_bytes((folder / first).read_bytes())
    (folder / "val" / "dog" / "zz.jpg").write_bytes(jpeg(500))
    assert first not in chosen(folder)[0].images.ids


def test_where_everything_is_a_copy_it_is_used_with_a_warning(folder: Path) -> None:
    notes = Notes()
    data = opened(folder / "train", val=str(folder / "train"))
    found = choose_calibration(data, 6, 0, "photos", notes)
    assert len(found.images) == 6
    assert "calibration images are copies of validation images" in notes.warnings[0]
    assert "--val" in notes.warnings[0]


def drawn(corrupt: tuple[int, ...]) -> Dataset:
    images = image_set(20, 2, corrupt=corrupt)
    return Dataset(Listing(images), images, image_set(4).subset(np.array([], np.int64)), whole=None)


def test_corrupt_images_are_replaced() -> None:
    first = int(choose_calibration(drawn(()), 6, 0, "drawn", Notes()).images.ids[0])
    notes = Notes()
    found = choose_calibration(drawn((first,)), 6, 0, "drawn", notes)
    assert str(first) not in found.images.ids
    assert len(found.images) == 6
    assert notes.warnings == [f"Skipped corrupt image {first}."]


def test_more_classes_than_images_are_only_noted(folder: Path) -> None:
    write_folder(folder / "train", 2, first=300, classes=("eel", "fox"))
    found, notes = chosen(folder, count=3)
    assert found.facts()["classes_present"] == 3
    assert notes.notes == ["The 3 calibration images show 3 of 4 classes."]
    assert notes.warnings == []


def test_missing_classes_are_warned_of(folder: Path) -> None:
    write_folder(folder / "train", 1, first=300, classes=("eel",))
    (folder / "val" / "eel").mkdir()
    (folder / "val" / "eel" / "copy.jpg").write_bytes((folder / "train" / "eel" / "0300.jpg").read_bytes())
    _, notes = chosen(folder)
    assert "The 6 calibration images show 2 of 3 classes; none shows eel." in notes.warnings


def test_constant_images_are_warned_of(tmp_path: Path) -> None:
    for index in range(12):
        path = tmp_path / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (20 * index, 90, 90)).save(path)
    _, notes = chosen(tmp_path)
    assert any("CONSTANT IMAGES: 6 of 6 calibration images" in text for text in notes.warnings)


def test_no_image_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="no image to calibrate with"):
        choose_calibration(drawn(tuple(range(20))), 6, 0, "drawn", Notes())


def kept(folder: Path, tmp_path: Path) -> tuple[CalibrationSet, Path]:
    found, _ = chosen(folder)
    found.write(tmp_path)
    return found, tmp_path / "calibration.json"


def test_a_choice_is_read_back(folder: Path, tmp_path: Path) -> None:
    found, path = kept(folder, tmp_path)
    again = read_calibration(path, opened(folder), SilentReporter())
    assert again.images.ids == found.images.ids
    assert again.images.labels.tolist() == found.images.labels.tolist()
    assert again.record() == found.record()


def test_changed_images_are_named(folder: Path, tmp_path: Path) -> None:
    found, path = kept(folder, tmp_path)
    changed = found.images.ids[2]
    (folder / changed).write_bytes(jpeg(999))
    with pytest.raises(InputError) as error:
        read_calibration(path, opened(folder), SilentReporter())
    assert f"1 calibration image is changed since they were chosen: {changed}." in error.value.message
    assert "optkit sample" in error.value.hint


def test_images_that_are_gone_are_named(folder: Path, tmp_path: Path) -> None:
    found, path = kept(folder, tmp_path)
    for name in found.images.ids[:2]:
        (folder / name).unlink()
    with pytest.raises(InputError) as error:
        read_calibration(path, opened(folder), SilentReporter())
    assert "2 calibration images are not among the training images" in error.value.message
    assert ", ".join(found.images.ids[:2]) in error.value.message
    assert f"--data {folder}" in error.value.hint


def test_another_split_that_holds_them_out_is_refused(folder: Path, tmp_path: Path) -> None:
    whole = folder / "train"
    _, path = kept(whole, tmp_path)
    with pytest.raises(InputError, match="among the validation images now"):
        read_calibration(path, opened(whole, val_fraction=0.9), SilentReporter())


def test_a_copy_that_came_into_validation_later_is_warned_of(folder: Path, tmp_path: Path) -> None:
    found, path = kept(folder, tmp_path)
    (folder / "val" / "dog" / "copy.jpg").write_bytes((folder / found.images.ids[0]).read_bytes())
    notes = Notes()
    assert len(read_calibration(path, opened(folder), notes).images) == 6
    assert "LEAK: 1 calibration images are copies" in notes.warnings[0]


EMPTY = '{"source": "photos", "seed": 0, "digest": "", "per_class": {}, "images": []}'


@pytest.mark.parametrize("text", ["", "[]", '{"images": 3}', "\xff", EMPTY])
def test_a_broken_record_is_refused(folder: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="names no calibration images"):
        read_calibration(path, opened(folder), SilentReporter())


def test_a_set_without_validation_images_is_calibrated_with(tmp_path: Path) -> None:
    write_folder(tmp_path, 1)
    found, notes = chosen(tmp_path)
    assert len(found.images) == 2
    assert notes.warnings == []
    assert np.all(found.images.labels == [0, 1])
