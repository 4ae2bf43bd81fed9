"""Opening image files from outside, and finding the broken ones early."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from optkit.data.base import CorruptImage

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def is_image(path: Path) -> bool:
    """Whether the file's ending is that of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def open_rgb(path: Path) -> Image.Image:
    """Decode a file as upright 8-bit RGB (first frame), transparent parts on white.

    CorruptImage with the reason when that fails.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities in files that decode all the same
            with Image.open(path) as image:
                image.load()
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith(("I", "F")):
                    upright = _to_8_bit(upright)
                if upright.has_transparency_data:
                    upright = upright.convert("RGBA")
                    upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
                return upright.convert("RGB")
    except DECODE_ERRORS as error:
        raise CorruptImage(_reason(error)) from None


def identity(class_name: str, path: Path) -> str:
    """What tells an image apart wherever it lies and however it is listed."""
    return f"{class_name}/{path.name}:{path.stat().st_size}"


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float grey to 8 bit: a dark image stays dark.

    White is 65535 for whole numbers; for floats the least of 1, 255 and 65535 that no value exceeds, as such
    files do not say. Beyond 65535 it is the image's own maximum.
    """
    pixels = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
    usual = (1, 255, 65535) if image.mode == "F" else (65535,)
    top = float(pixels.max())
    white = next((value for value in usual if top <= value), top)
    return Image.fromarray(np.round(np.clip(pixels * (255 / white), 0, 255)).astype(np.uint8))


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
