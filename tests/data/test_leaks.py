"""Copies between training and validation, and the pictures that only look alike."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from optkit.core.progress import SilentReporter
from optkit.data import leaks as module
from optkit.data.base import Dataset, Leaks
from optkit.data.config import DataConfig, TrainingDataConfig
from optkit.data.leaks import find_leaks, with_leaks
from optkit.data.load import load_data
from tests.data.photos import write_folder


def scene(seed: int, side: int = 200) -> Image.Image:
    """A picture with coarse and fine structure, as photos have."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((side, side, 3))
    for cells in (3, 9, 27):
        layer = Image.fromarray(rng.integers(0, 255, (cells, cells, 3), np.uint8))
        pixels += np.asarray(layer.resize((side, side), Image.Resampling.BICUBIC), float)
    return Image.fromarray((pixels / 3).astype(np.uint8))


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ with 2 × 10 and val/ with 2 × 3 scenes, all different."""
    for share, count, first in (("train", 10, 0), ("val", 3, 100)):
        for number, name in enumerate(("cat", "dog")):
            for index in range(count):
                seed = first + number * count + index
                save(scene(seed), tmp_path / share / name / f"{seed}.jpg", quality=92)
    return tmp_path


def search(path: Path | str, **options: object) -> tuple[Leaks, list[str]]:
    reporter = SilentReporter()
    data = load_data(DataConfig(path=str(path), **options), reporter)
    return find_leaks(data, reporter), reporter.warnings


def test_different_images_are_not_reported(folder: Path) -> None:
    found, warnings = search(folder)
    assert found == Leaks(exact=0, near=0, contradictory=0, checked=26, pairs=[])
    assert warnings == []


@pytest.mark.parametrize("path", ["digits", "synthetic"])
def test_drawings_that_look_alike_are_not_reported(path: str) -> None:
    assert search(path)[0].pairs == []


def test_a_copied_file_is_found_and_named(folder: Path) -> None:
    (folder / "val" / "dog" / "copy.jpg").write_bytes((folder / "train" / "dog" / "12.jpg").read_bytes())
    found, warnings = search(folder)
    assert (found.exact, found.near) == (1, 0)
    assert found.pairs == [("train/dog/12.jpg", "val/dog/copy.jpg", "exact")]
    assert len(warnings) == 1
    assert "1 of 7 validation images" in warnings[0]
    assert "val/dog/copy.jpg = train/dog/12.jpg" in warnings[0]


def _turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter to the right
    save(image.transpose(Image.Transpose.ROTATE_90), path, quality=92, exif=exif)


@pytest.mark.parametrize(
    "copy",
    [
        lambda image, path: save(image, path, quality=20),
        lambda image, path: save(image, path.with_suffix(".png")),
        lambda image, path: save(image.resize((67, 67)), path),
        lambda image, path: save(image.resize((400, 400)), path),
        lambda image, path: save(image.resize((256, 160)), path),
        lambda image, path: save(ImageEnhance.Brightness(image).enhance(1.2), path),
        lambda image, path: save(image.convert("L"), path),
        lambda image, path: save(image.convert("CMYK"), path),
        _turned,
    ],
    ids=["compressed", "png", "smaller", "larger", "squashed", "brighter", "grey", "cmyk", "turned"],
)
def test_near_copies_are_found(folder: Path, copy: object) -> None:
    copy(scene(4), folder / "val" / "cat" / "copy.jpg")
    found, warnings = search(folder)
    assert (found.exact, found.near) == (0, 1)
    assert found.pairs[0][0] == "train/cat/4.jpg"
    assert "1 near cop" in warnings[0]


def test_copies_across_our_own_split_are_found(tmp_path: Path) -> None:
    for number in range(12):
        name = ("cat", "dog")[number % 2]
        for index in range(2):
            save(scene(number), tmp_path / name / f"{number}-{index}.jpg", quality=90 - 20 * index)
    data = load_data(DataConfig(path=str(tmp_path), val_fraction=0.3), SilentReporter())
    found, _ = search(tmp_path, val_fraction=0.3)
    numbers = {name.split("/")[1].split("-")[0] for name in data.train.ids}
    expected = [name for name in data.val.ids if name.split("/")[1].split("-")[0] in numbers]
    assert expected
    assert sorted(pair[1] for pair in found.pairs) == sorted(expected)


def test_contradictory_labels_are_found(folder: Path) -> None:
    (folder / "train" / "dog" / "copy.jpg").write_bytes((folder / "train" / "cat" / "2.jpg").read_bytes())
    (folder / "train" / "cat" / "same.jpg").write_bytes((folder / "train" / "cat" / "3.jpg").read_bytes())
    found, warnings = search(folder)
    assert (found.exact, found.near, found.contradictory) == (0, 0, 1)
    assert found.pairs == [("train/cat/2.jpg", "train/dog/copy.jpg", "contradictory")]
    assert "CONTRADICTORY LABELS" in warnings[0]


def test_flat_tiny_and_broken_images_are_compared_by_digest_alone(folder: Path) -> None:
    for share, value in (("train", 100), ("val", 101)):
        save(Image.new("RGB", (100, 100), (value,) * 3), folder / share / "cat" / "flat.png")
        save(scene(500, 20), folder / share / "cat" / f"tiny-{value}.{'png' if value == 100 else 'bmp'}")
        cut = folder / share / "dog" / "cut.png"
        save(scene(501 + value), cut)
        cut.write_bytes(cut.read_bytes()[:3000])
    found, _ = search(folder)
    assert found.pairs == []
    assert found.checked == 32


def test_many_images_are_sampled_and_it_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 10)
    told: list[str] = []
    reporter = SilentReporter()
    monkeypatch.setattr(reporter, "info", told.append)
    data = load_data(DataConfig(path=str(folder)), reporter)
    assert find_leaks(data, reporter).checked == 10
    assert told == ["Looking for copies among 10 of 26 images."]


@pytest.mark.parametrize(
    ("train", "val", "expected"), [(30, 6, (30, 6)), (90, 6, (34, 6)), (90, 90, (20, 20)), (3, 90, (3, 37))]
)
def test_the_sample_fits_the_limit(
    train: int, val: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 40)
    assert tuple(len(chosen) for chosen in module._sample(train, val)) == expected


def test_only_some_pairs_are_kept(tmp_path: Path) -> None:
    for share in ("train", "val"):
        write_folder(tmp_path / share, 30)
    found, warnings = search(tmp_path)
    assert found.exact == 60
    assert len(found.pairs) == 50
    assert len(warnings[0]) < 400


def test_the_switch_and_the_data_card(folder: Path) -> None:
    (folder / "val" / "dog" / "copy.jpg").write_bytes((folder / "train" / "dog" / "12.jpg").read_bytes())
    for wanted in (True, False):
        reporter = SilentReporter()
        config = TrainingDataConfig(path=str(folder), check_leaks=wanted)
        card = with_leaks(load_data(config, reporter), config, reporter).summary()
        assert bool(reporter.warnings) == wanted
        assert (card["leaks"] or {}).get("exact") == (1 if wanted else None)


def test_an_animated_image_is_no_obstacle(folder: Path) -> None:
    frames = [scene(700), scene(701)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    for share in ("train", "val"):
        (folder / share / "cat" / "moving.gif").write_bytes(stream.getvalue())
    assert search(folder)[0].exact == 1


def test_images_without_detail_are_compared_with_nothing_and_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All have the same hash: each would be compared with each."""
    for share in ("train", "val"):
        for value in range(0, 100, 5):
            flat = Image.new("RGB", (60, 60), (value + (share == "val"),) * 3)
            save(flat, folder / share / "cat" / f"flat-{value}.png")
    compared: list[int] = []
    bitwise_count = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda bits: compared.append(len(bits)) or bitwise_count(bits))
    reporter = SilentReporter()
    told: list[str] = []
    monkeypatch.setattr(reporter, "info", told.append)
    data = load_data(DataConfig(path=str(folder)), reporter)
    found = find_leaks(data, reporter)
    assert compared == [20] * 6
    assert (found.checked, found.content_only, found.pairs) == (66, 40, [])
    assert "40 images are flat or under 32 pixels" in told[0]
    assert Dataset(data.listing, data.train, data.val, None, found).summary()["leaks"]["content_only"] == 40


def test_of_many_that_look_alike_the_nearest_are_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DISTANCE", 64)  # all are alike
    monkeypatch.setattr(module, "MAX_ALIKE", 2)
    save(scene(14), folder / "val" / "dog" / "copy.png")
    assert search(folder)[0].pairs == [("train/dog/14.jpg", "val/dog/copy.png", "near")]
    monkeypatch.setattr(module, "MAX_ALIKE", 0)
    with pytest.raises(ValueError, match="zero-size"):  # as it then has none to compare
        search(folder)
