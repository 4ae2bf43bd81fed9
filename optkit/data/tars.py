"""Images in tar files, here or on a web server: found by one walk over the headers, read where they lie.

Nothing is unpacked, and what a tar claims of itself is not trusted.
"""

from __future__ import annotations

import json
import re
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from optkit.core.errors import InputError
from optkit.data.base import CorruptImage
from optkit.data.files import is_image
from optkit.data.images import MAX_IMAGE_BYTES
from optkit.data.shards import is_remote, remote, remote_info, unreachable

MAX_LABEL_BYTES = 1 << 20  # of a .cls or .json, and of a header that claims to be long
REMOTE_BLOCK_BYTES = 1 << 20  # read at once while walking from header to header
PAUSES = (0, 0.3, 1)  # seconds before every attempt to read over the network


@dataclass(frozen=True)
class TarImage:
    """Where an encoded image lies, and its label. `name` is unique over all shards."""

    name: str
    shard: str
    offset: int
    size: int
    label: str


@dataclass
class _Sample:
    """The files of one name in a tar, and whether something wrong with them was told of."""

    image: tuple[str, int, int] | None = None
    label: str | None = None
    is_reported: bool = False


@dataclass
class _Walk:
    """What was found in a tar."""

    samples: dict[str, _Sample] = field(default_factory=dict)
    corrupt: list[dict[str, str]] = field(default_factory=list)


def index_tar(shard: str, short: str) -> tuple[list[TarImage], list[dict[str, str]]]:
    """The labelled images of a tar, and what is wrong in it."""
    walk = _Walk()
    try:
        with (
            _open(shard) as (stream, length),
            tarfile.open(fileobj=_Headers(stream, shard), mode="r:") as archive,
        ):
            _walk(archive, length, walk)
    # Recursion: a long name that belongs to a long name, and so on.
    except (tarfile.TarError, OSError, ValueError, EOFError, RecursionError) as error:
        if not walk.samples:
            raise InputError(
                f"{shard!r} is not a readable tar file.",
                why=str(error),
                hint="Make it anew, without compression.",
            ) from None
        walk.corrupt.append({"file": "", "reason": f"cannot be read to its end: {error}"})
    images = []
    for key, sample in walk.samples.items():
        if sample.image is None:
            if sample.label is not None and not sample.is_reported:
                walk.corrupt.append({"file": key, "reason": "no image that is read"})
            continue
        name, offset, size = sample.image
        if sample.label is None:
            walk.corrupt.append({"file": name, "reason": f"no label: {key}.cls or {key}.json"})
        else:
            images.append(TarImage(f"{short}/{name}", shard, offset, size, sample.label))
    named = [{**entry, "file": f"{short}/{entry['file']}".rstrip("/")} for entry in walk.corrupt]
    return images, named


def _walk(archive: tarfile.TarFile, length: int, walk: _Walk) -> None:
    """Gather the regular files of a tar by name; links, devices and folders are left out."""
    position = -1
    while (member := archive.next()) is not None:
        if member.offset <= position or member.size < 0:
            raise tarfile.ReadError("headers lead in a circle")
        position = member.offset
        archive.members.clear()  # tarfile keeps every header
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if not member.isreg() or member.issparse() or not stem:
            continue
        sample = walk.samples.setdefault(f"{folder}/{stem}" if folder else stem, _Sample())
        try:
            _add(sample, archive, member, ending.lower(), length)
        except CorruptImage as error:
            sample.is_reported = True
            walk.corrupt.append({"file": member.name, "reason": str(error)})


def _add(
    sample: _Sample, archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str, length: int
) -> None:
    if member.offset_data + member.size > length:
        raise CorruptImage("cut off")
    if ending in ("cls", "json"):
        if sample.label is None or ending == "cls":
            sample.label = _label(archive, member, ending)
    elif "." not in ending and is_image(Path(f"x.{ending}")):  # x.mask.png is no picture of x
        if sample.image is not None:
            raise CorruptImage("a second image of this name")
        if not 0 < member.size <= MAX_IMAGE_BYTES:
            raise CorruptImage("too large a file" if member.size else "empty file")
        sample.image = (member.name, member.offset_data, member.size)


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> str | None:
    """The class name or number in a .cls or .json file; None for -1, the label of images for contests."""
    stream = archive.extractfile(member)
    if stream is None or member.size > MAX_LABEL_BYTES:
        raise CorruptImage("too large a label")
    try:
        text = stream.read().decode()
        value: Any = json.loads(text).get("label") if ending == "json" else text.strip()
    except (ValueError, AttributeError, RecursionError):
        raise CorruptImage("not a label") from None
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise CorruptImage("no label in it")
    return None if re.fullmatch(r"-\d+", str(value)) else str(value)


class _Headers:
    """A seekable tar of which a header can make nobody read much at once; MissingError when the network fails."""

    def __init__(self, stream: BinaryIO, shard: str) -> None:
        self._stream, self._shard = stream, shard
        self._failures = _network_errors() if is_remote(shard) else ()
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= MAX_LABEL_BYTES + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a header of impossible length")
        try:
            return self._stream.read(count)
        except self._failures as error:
            raise unreachable(self._shard, error) from None


@contextmanager
def _open(shard: str) -> Iterator[tuple[BinaryIO, int]]:
    """A tar for reading its headers, and its length in bytes."""
    if not is_remote(shard):
        with Path(shard).open("rb") as stream:
            yield stream, Path(shard).stat().st_size
        return
    size = remote_info(shard).get("size")
    if not size:
        raise InputError(f"The server does not tell how long {shard!r} is.", hint="Download it first.")
    with remote(shard).open(
        shard, "rb", block_size=REMOTE_BLOCK_BYTES, size=size, cache_type="readahead"
    ) as stream:
        yield stream, size


def read_tar_image(image: TarImage) -> bytes:
    """The encoded image."""
    if is_remote(image.shard):
        data = _read_remote(image)
    else:
        try:
            with Path(image.shard).open("rb") as stream:
                stream.seek(image.offset)
                data = stream.read(image.size)
        except OSError as error:
            raise CorruptImage(str(error)) from None
    if len(data) != image.size:
        raise CorruptImage("the tar file has changed")
    return data


def _read_remote(image: TarImage) -> bytes:
    for seconds in PAUSES:
        time.sleep(seconds)
        try:
            found: bytes = remote(image.shard).cat_file(
                image.shard, start=image.offset, end=image.offset + image.size
            )
        except _network_errors() as error:
            failure = unreachable(image.shard, error)
        else:
            if len(found) > image.size:
                raise InputError(
                    f"The server of {image.shard!r} sends whole files only.",
                    why="It does not answer range requests.",
                    hint="Download the shards first.",
                )
            return found
    raise failure


def _network_errors() -> tuple[type[Exception], ...]:
    import aiohttp  # an extra

    return OSError, aiohttp.ClientError, TimeoutError
