"""Opening image files from outside, and finding the broken ones early."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from optkit.data.base import DECODE_ERRORS, CorruptImage

# Kinds of pictures that are not read: told of, as their absence would not be noticed.
UNREAD_SUFFIXES = frozenset(
    (".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".exr", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw")
)
MAX_PIXELS = 178_956_970  # where Pillow refuses, too
MAX_RATIO = 100  # long side over short: resized to a short side of 256 pixels, more would fill the memory
MAX_IMAGE_BYTES = 1 << 28
APP1, START_OF_SCAN = b"\xff\xe1", b"\xff\xda"


def is_unread_image(path: Path) -> bool:
    """Whether the file's ending is that of an image of a kind that is not read."""
    return path.suffix.lower() in UNREAD_SUFFIXES and not path.name.startswith(".")


def open_rgb(path: Path) -> Image.Image:
    """Decode a file as upright 8-bit RGB; CorruptImage with the reason when that fails."""
    return decode_rgb(read_file(path))


def read_file(path: Path) -> bytes:
    """The file as it is stored; CorruptImage with the reason when that fails."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptImage(_reason(error)) from None


def decode_rgb(data: bytes) -> Image.Image:
    """`decode_pixels` as a Pillow image."""
    return Image.fromarray(decode_pixels(data))


def decode_pixels(data: bytes, min_side: int = 0) -> NDArray[np.uint8]:
    """The encoded image as upright 8-bit RGB (h, w, 3) (first frame), transparent parts on white.

    A JPEG may come at a half, a quarter or an eighth of its size, as long as no side is below `min_side`
    (0: the full size). CorruptImage with the reason when the image cannot be decoded.
    """
    try:
        if (pixels := _decode_jpeg(data, min_side)) is not None:
            return pixels
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities in files that decode all the same
            with Image.open(io.BytesIO(data)) as image:
                _check_shape(image)
                return _upright_rgb(image)
    except DECODE_ERRORS as error:
        raise CorruptImage(_reason(error)) from None


def _decode_jpeg(data: bytes, min_side: int) -> NDArray[np.uint8] | None:
    """The pixels by libjpeg-turbo, the same as Pillow's; None for what Pillow must look at."""
    if not simplejpeg.is_jpeg(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours in ("CMYK", "YCCK") or width * height > MAX_PIXELS or _is_narrow(width, height):
            return None
        factor = _reduction(width, height, min_side)
        pixels = simplejpeg.decode_jpeg(
            data, min_height=height // factor, min_width=width // factor, min_factor=factor
        )
    except ValueError:  # damaged: Pillow reads some of it, and has the better reasons
        return None
    return _upright(pixels, _orientation(data)) if _may_be_turned(data) else pixels


def _may_be_turned(jpeg: bytes) -> bool:
    """Whether there is EXIF or XMP, or anything unusual, before the pixels; Pillow takes longer to tell."""
    at = 2
    while (marker := jpeg[at : at + 2]) != START_OF_SCAN:
        if marker == APP1 or marker[:1] != b"\xff":
            return True
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return False


def _orientation(data: bytes) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1)


def _reduction(width: int, height: int, min_side: int) -> int:
    """The factor to decode a JPEG at: powers of two alone are quick.

    It divides both sides: a last block that is cut would shift the picture by part of a pixel.
    """
    if min_side <= 0:
        return 1
    factors = (8, 4, 2)
    return next(
        (f for f in factors if min(width, height) >= f * min_side and width % f == height % f == 0), 1
    )


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo the EXIF orientation: 2…4 mirror or turn by half, 5…8 also swap the sides."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _is_narrow(width: int, height: int) -> bool:
    return max(width, height) > MAX_RATIO * min(width, height)


def _check_shape(image: Image.Image) -> None:
    if _is_narrow(*image.size):
        raise CorruptImage("too narrow")


def _upright_rgb(image: Image.Image) -> NDArray[np.uint8]:
    image.load()  # before EXIF is asked for: a TIFF is turned by it
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _upright(np.array(image.convert("RGB")), orientation)


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
                _check_shape(image)
    except (CorruptImage, *DECODE_ERRORS) as error:
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
