from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.core.types import Preprocess
from optkit.data.files import find_images
from optkit.data.loading import batches
from optkit.data.unlabelled import unlabelled_images, unread


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "sub/a.png", "sub/.hidden/c.png", ".d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    (tmp_path / "film.mp4").write_bytes(b"x")
    return tmp_path


def test_images_of_a_folder_of_a_pattern_and_by_name(folder: Path) -> None:
    photos = [folder / "b.JPG", folder / "sub" / "a.png"]
    assert find_images([str(folder)]) == photos
    assert find_images([f"{folder}/**/*"]) == photos
    assert find_images([str(photos[1]), f"{folder}/*"]) == photos
    assert find_images([str(folder / "sub" / ".hidden")]) == [
        folder / "sub" / ".hidden" / "c.png"
    ]  # as asked


def test_nothing_to_find(folder: Path) -> None:
    with pytest.raises(InputError, match="No file matches"):
        find_images([f"{folder}/*.tif"])
    with pytest.raises(InputError, match="holds no image"):
        find_images([str(folder / "film.mp4")])


def test_what_was_not_read_is_named_with_its_reason(folder: Path) -> None:
    (folder / "b.JPG").write_bytes(b"text")
    images = unlabelled_images(find_images([str(folder)]))
    (batch,) = batches(images, Preprocess(size=16), 4, SilentReporter())
    assert batch.indices.tolist() == [1]
    assert unread(images, batch.indices.tolist()) == [{"file": images.ids[0], "reason": "not an image"}]
