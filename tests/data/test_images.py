"""Image files of every kind become upright 8-bit RGB."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from optkit.data.base import CorruptImage
from optkit.data.images import decode_pixels, decode_rgb, open_rgb, quick_check
from tests.data.pictures import encoded_set, huge_jpeg, huge_png, jpeg, photo, turned


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_kinds_of_pixels(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((8, 8), 128, np.uint8))
    assert open_rgb(save(tmp_path / "grey.png", grey)).getpixel((0, 0)) == (128, 128, 128)
    deep = Image.fromarray(np.full((8, 8), 32896, np.uint16))
    assert open_rgb(save(tmp_path / "deep.png", deep)).getpixel((0, 0)) == (128, 128, 128)
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = open_rgb(save(tmp_path / "cmyk.jpg", cmyk)).getpixel((0, 0))
    assert red[0] > 200
    assert max(red[1:]) < 60
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "two.gif", frames[0], save_all=True, append_images=frames[1:])
    assert open_rgb(path).getpixel((0, 0)) == (255, 0, 0)


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert open_rgb(save(tmp_path / "turned.jpg", image, exif=exif)).size == (4, 8)


def test_a_bomb_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "large.png", Image.new("RGB", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(CorruptImage, match="too many pixels"):
        open_rgb(path)
    assert quick_check(path) == "too many pixels"


def test_a_good_image_passes_the_quick_check(tmp_path: Path) -> None:
    assert quick_check(save(tmp_path / "good.jpg", Image.new("RGB", (50, 50)))) is None


def grey_of(path: Path, pixels: np.ndarray) -> list[int]:
    rgb = open_rgb(save(path, Image.fromarray(pixels)))
    return np.asarray(rgb)[0, :, 0].tolist()


def test_deep_grey_is_scaled_by_its_kind_not_its_content(tmp_path: Path) -> None:
    assert grey_of(tmp_path / "dark.png", np.array([[0, 200, 2570]], np.uint16)) == [0, 1, 10]
    assert grey_of(tmp_path / "long.tif", np.array([[-5, 200, 65535]], np.int32)) == [0, 1, 255]
    assert grey_of(tmp_path / "longer.tif", np.array([[0, 100_000, 200_000]], np.int32)) == [0, 128, 255]
    assert grey_of(tmp_path / "unit.tif", np.array([[0, 0.5, np.nan]], np.float32)) == [0, 128, 0]
    assert grey_of(tmp_path / "bytes.tif", np.array([[0, 10, 200]], np.float32)) == [0, 10, 200]


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert open_rgb(save(tmp_path / "clear.png", image)).getpixel((0, 0)) == (255, 255, 255)
    image = Image.new("LA", (4, 4), (0, 255))
    assert open_rgb(save(tmp_path / "solid.png", image)).getpixel((0, 0)) == (0, 0, 0)
    image = Image.new("P", (4, 4))
    assert open_rgb(save(tmp_path / "index.gif", image, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_blocks": 1}, {"comment": b"hi"}],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_decoded_as_pillow_does(mode: str, options: dict[str, object]) -> None:
    data = jpeg(photo(61, 47).convert(mode), **options)
    assert np.array_equal(decode_pixels(data), by_pillow(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(orientation: int) -> None:
    data = turned(orientation)
    assert np.array_equal(decode_pixels(data), by_pillow(data))
    assert (
        decode_pixels(turned(orientation, 64, 32), 16).shape[:2]
        == by_pillow(turned(orientation, 32, 16)).shape[:2]
    )


@pytest.mark.parametrize(
    ("size", "min_side", "shape"),
    [
        ((800, 640), 0, (640, 800)),
        ((800, 640), 80, (80, 100)),
        ((800, 640), 81, (160, 200)),
        ((800, 640), 400, (640, 800)),
        ((800, 640), 5000, (640, 800)),
        ((802, 641), 80, (641, 802)),  # a cut block would shift the picture
    ],
)
def test_a_jpeg_is_decoded_no_smaller_than_asked(
    size: tuple[int, int], min_side: int, shape: tuple[int, int]
) -> None:
    picture = photo(*size)
    found = decode_pixels(jpeg(picture), min_side)
    assert found.shape[:2] == shape
    exact = np.asarray(picture.resize(shape[::-1], Image.Resampling.BOX), int)
    assert np.abs(exact - found).mean() < 2


@pytest.mark.parametrize("data", [huge_jpeg(), huge_png(), huge_jpeg(65_000)])
def test_a_huge_image_is_refused_before_memory_is_given_to_it(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        for min_side in (0, 8):
            with pytest.raises(CorruptImage, match="too many pixels"):
                decode_pixels(data, min_side)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert quick_check(path) == "too many pixels"


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\xff\xd8\xff", jpeg(photo(40, 30))[:700], b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_image_is_corrupt(data: bytes) -> None:
    for min_side in (0, 8):
        with pytest.raises(CorruptImage):
            decode_pixels(data, min_side)
    with pytest.raises(CorruptImage):
        decode_rgb(data)


def test_damaged_files_are_read_or_corrupt_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    data = np.frombuffer(turned(6, 40, 30), np.uint8)
    for _ in range(300):
        damaged = data.copy()
        damaged[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
        with contextlib.suppress(CorruptImage):
            assert decode_pixels(damaged.tobytes(), 8).shape[2] == 3


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (1010, 10)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_is_too_narrow_to_be_resized_is_corrupt(
    size: tuple[int, int], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "narrow"
    Image.new("RGB", size).save(path, kind)
    assert quick_check(path) == "too narrow"
    for min_side in (0, 8):
        with pytest.raises(CorruptImage, match="too narrow"):
            decode_pixels(path.read_bytes(), min_side)
    Image.new("RGB", (1000, 10)).save(path, kind)
    assert quick_check(path) is None
    assert decode_pixels(path.read_bytes()).shape == (10, 1000, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_kind_is_turned_upright_once(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    photo(32, 16).save(stream, kind, exif=exif)
    data = stream.getvalue()
    assert np.array_equal(decode_pixels(data), by_pillow(data))
    assert decode_pixels(data).shape == (32, 16, 3)
    if kind != "PNG":  # not asked for, as that would decode it
        facts = encoded_set([data]).subset(np.array([0])).facts()
        assert (facts["width"]["max"], facts["height"]["max"]) == (16, 32)


@pytest.mark.filterwarnings("ignore")
def test_broken_exif_is_corrupt_or_does_no_harm() -> None:
    """EXIF is read, never written anew: values that Pillow cannot write are no obstacle."""
    stream = io.BytesIO()
    photo(32, 16).save(stream, "WEBP", exif=bytes(200))
    at = stream.getvalue().index(b"EXIF") + 8
    rng = np.random.default_rng(0)
    start = b"II*\0\x08\0\0\0\x06\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    for _ in range(300):
        tags = start + b"".join(
            bytes(rng.integers(0, 256, 2, np.uint8))
            + bytes([kind, 0, 1, 0, 0, 0])
            + bytes(rng.integers(0, 256, 4, np.uint8))
            for kind in rng.integers(1, 13, 5).tolist()
        )
        data = bytearray(stream.getvalue())
        data[at : at + len(tags)] = tags
        with contextlib.suppress(CorruptImage):
            assert decode_pixels(bytes(data)).shape[2] == 3
            encoded_set([bytes(data), bytes(data)]).facts()


def test_struct_errors_are_corrupt_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def getexif(image: Image.Image) -> Image.Exif:
        raise struct.error("short")

    monkeypatch.setattr(Image.Image, "getexif", getexif)
    stream = io.BytesIO()
    photo(32, 16).save(stream, "WEBP")
    with pytest.raises(CorruptImage, match="short"):
        decode_pixels(stream.getvalue())
    assert encoded_set([stream.getvalue()] * 2).facts()["sampled"] == 0
