"""Opening image files from outside, and finding the broken ones early."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from optkit.data.base import CorruptImage

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def is_image(path: Path) -> bool:
    """Whether the file's ending is that of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def open_rgb(path: Path) -> Image.Image:
    """Decode a file as upright 8-bit RGB (first frame); CorruptImage with the reason when that fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities in files that decode all the same
            with Image.open(path) as image:
                image.load()
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith(("I", "F")):  # 16-bit and float: scale to 8 bit, not clip
                    upright = _to_8_bit(upright)
                return upright.convert("RGB")
    except DECODE_ERRORS as error:
        raise CorruptImage(_reason(error)) from None


def _to_8_bit(image: Image.Image) -> Image.Image:
    low, high = image.getextrema()
    top = 255 if high <= 255 else 65535 if high <= 65535 and low >= 0 else high
    return image.convert("F").point(lambda value: value * (255 / top)).convert("L")


def quick_check(path: Path) -> str | None:
    """Why a file is corrupt as far as can be told without decoding it, None when nothing is wrong.

    Reads the header and, for JPEG, looks for the end marker, which a truncated download lacks.
    """
    try:
        if path.stat().st_size == 0:
            return "empty file"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                kind = image.format
    except DECODE_ERRORS as error:
        return _reason(error)
    if kind == "JPEG":
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 4096))
            if b"\xff\xd9" not in stream.read():
                return "truncated JPEG"
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    return str(error) or type(error).__name__
