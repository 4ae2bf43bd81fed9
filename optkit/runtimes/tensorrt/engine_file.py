"""What an engine file says of itself in its first bytes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError

FLAVOURS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
MAGIC = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
# Bits of the target field in a TensorRT-RTX header, read off engines built for each of them.
TARGET_BITS = {1: "SM75", 2: "SM80", 4: "SM86", 8: "SM89", 16: "SM120", 32: "SM121"}
HEADER_BYTES = 64


def describe(path: Path) -> dict[str, Any]:
    """What an engine file says of itself, without TensorRT and without a GPU; InputError when it is none.

    `flavour`, `version`, `compute_capability` (a list; None: it does not say), `size_bytes`.
    """
    with path.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
    flavour, size_bytes = MAGIC.get(header[:4]), path.stat().st_size
    if flavour is None or len(header) < HEADER_BYTES:
        raise InputError(
            f"{str(path)!r} is not a TensorRT engine.",
            why="It does not begin as TensorRT's and TensorRT-RTX's engines do."
            if header
            else "It is empty.",
            hint="Build one: optkit export MODEL --format tensorrt",
        )
    facts: dict[str, Any] = {"flavour": flavour, "version": None, "compute_capability": None}
    if header[4:8] == bytes(4):  # the layout whose version trtexec reads too (--getPlanVersionOnly)
        facts["version"] = ".".join(str(part) for part in header[24:28])
    if flavour == "tensorrt_rtx" and header[28:32] == header[:4]:
        (stated,), (targets,) = struct.unpack_from("<Q", header, 16), struct.unpack_from("<I", header, 32)
        if stated != size_bytes:
            raise InputError(
                f"{str(path)!r} is a damaged TensorRT-RTX engine.",
                why=f"Its header says {stated:,} bytes, the file has {size_bytes:,}.",
                hint="Copy or build it again.",
            )
        facts["compute_capability"] = [name for bit, name in TARGET_BITS.items() if targets & bit]
    return {**facts, "size_bytes": size_bytes}


def summary(facts: dict[str, Any]) -> str:
    """`TensorRT-RTX 1.7.1.116 engine for SM89, 7,123,456 bytes`."""
    version = facts["version"] or "of unknown version"
    targets = facts["compute_capability"]
    for_whom = f" for {', '.join(targets)}" if targets else ""
    return f"{FLAVOURS[facts['flavour']]} {version} engine{for_whom}, {facts['size_bytes']:,} bytes"
