"""Small image sets to load from."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from optkit.data.base import CorruptImage, ImageSet
from optkit.data.images import decode_rgb


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth picture, as photos are."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def png_noise(width: int, height: int, seed: int = 0) -> bytes:
    """Noise, which no way of making it smaller leaves as another does."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def image_set(count: int = 10, classes: int = 2, corrupt: tuple[int, ...] = ()) -> ImageSet:
    """Drawn noise of 60 × 40 pixels."""

    def open_image(index: int) -> Image.Image:
        if index in corrupt:
            raise CorruptImage("broken")
        pixels = np.random.default_rng(index).integers(0, 255, (40, 60, 3), np.uint8)
        return Image.fromarray(pixels)

    labels = np.arange(count) % classes
    ids = tuple(map(str, range(count)))
    return ImageSet(tuple("abcdefgh"[:classes]), ids, labels, open_image, ids)


def encoded_set(files: list[bytes], opened: Image.Image | None = None) -> ImageSet:
    """Images of two classes from the bytes of `files`; `opened` is what `open_image` gives instead."""
    ids = tuple(map(str, range(len(files))))
    return ImageSet(
        class_names=("a", "b"),
        ids=ids,
        labels=np.arange(len(files)) % 2,
        open_image=lambda index: opened or decode_rgb(files[index]),
        identities=ids,
        read_image=lambda index: files[index],
    )


def huge_jpeg(side: int = 50_000) -> bytes:
    """A small file whose header claims `side` × `side` pixels."""
    data = jpeg(photo(16, 16))
    size = data.index(b"\xff\xc0") + 5
    return data[:size] + struct.pack(">HH", side, side) + data[size + 4 :]


def huge_png(side: int = 50_000) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def turned(orientation: int, width: int = 16, height: int = 8) -> bytes:
    """A JPEG that EXIF says is turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(photo(width, height), exif=exif)


def save_oddities(folder: Path) -> tuple[set[str], set[str]]:
    """Unusual images, and files that are none; the names of both."""
    folder.mkdir(parents=True)
    picture = photo(40, 30)
    picture.save(folder / "plain.jpg")
    picture.save(folder / "progressive.jpg", progressive=True)
    picture.convert("L").save(folder / "grey.jpg")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("RGBA").save(folder / "transparent.png")
    picture.save(folder / "lossy.webp")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(folder / "deep.png")
    picture.save(folder / "moving.gif", save_all=True, append_images=[photo(40, 30, seed=1)])
    picture.save(folder / "moving.webp", save_all=True, append_images=[photo(40, 30, seed=1)])
    (folder / "turned.jpg").write_bytes(turned(6, 40, 30))
    (folder / "rubbish_after.jpg").write_bytes(jpeg(picture) + b"more")
    good = {file.name for file in folder.iterdir()}
    png = io.BytesIO()
    picture.save(png, "PNG")
    broken = {
        "empty.jpg": b"",
        "text.png": b"not a picture",
        "cut.jpg": jpeg(picture)[:500],
        "cut_inside.jpg": jpeg(picture)[:500] + b"\xff\xd9",
        "cut.png": png.getvalue()[:300],
        "huge.jpg": huge_jpeg(),
        "huge.png": huge_png(),
    }
    for name, data in broken.items():
        (folder / name).write_bytes(data)
    return good, set(broken)
