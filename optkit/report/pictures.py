"""Images of artifact folders as data URIs, so that the page stays one file."""

from __future__ import annotations

import base64
from pathlib import Path

from optkit.report.evaluation_schema import Picture

MAX_PICTURES = 24  # of one step
MAX_BYTES = 600_000  # of one picture
MAX_PAGE_BYTES = 8_000_000  # of all pictures of a page
# Only what a browser shows as pixels: an SVG could hold a script.
MEDIA_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


class Album:
    """Takes pictures of the artifacts below `folder` into one page, as far as there is room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left_bytes = MAX_PAGE_BYTES

    def uris(self, step: str, pictures: tuple[Picture, ...]) -> list[tuple[Picture, str | None]]:
        """The first pictures of `step` with their data URI, None for one that cannot be shown."""
        return [(picture, self._uri(step, picture.image)) for picture in pictures[:MAX_PICTURES]]

    def _uri(self, step: str, image: str) -> str | None:
        content = _read(self.folder / step, image, min(MAX_BYTES, self.left_bytes))
        media_type = next((kind for start, kind in MEDIA_TYPES.items() if content.startswith(start)), None)
        if media_type is None:
            return None
        self.left_bytes -= len(content)
        return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _read(folder: Path, image: str, limit: int) -> bytes:
    """The file's content; nothing when it is absent, larger than `limit` bytes, or outside `folder`."""
    try:
        path = (folder / image).resolve()
        inside = path.is_relative_to(folder.resolve()) and path.is_file()
        return path.read_bytes() if inside and path.stat().st_size <= limit else b""
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return b""
