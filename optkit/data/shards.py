"""Which files a data path means when it names many; light, as the fingerprint of a config needs it too."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from optkit.core import discover, fingerprint
from optkit.core.errors import InputError, MissingError

VALIDATION_NAMES = ("val", "valid", "validation", "test")
SHARES = ("train", *VALIDATION_NAMES)
MAX_SHARDS = 100_000  # a pattern may mean any number of files
CLASSES = "classes.txt"


def is_remote(path: str) -> bool:
    """Whether `path` is read over the network."""
    return path.startswith(("http://", "https://"))


def is_sharded(path: str) -> bool:
    """Whether `path` names tar files: one, a pattern of them, a URL, or a folder that holds them."""
    if Path(path).is_dir():
        return bool(_in_folder(Path(path)))
    return is_remote(path) or path.lower().endswith(".tar")


def find_shards(path: str) -> list[str]:
    """The tar files that `path` means, sorted; InputError when there is none or one is absent."""
    if Path(path).is_dir():
        return [str(file) for file in _in_folder(Path(path))]
    found = list(islice(_braces(path), MAX_SHARDS + 1))
    if not found:
        raise InputError(f"{path!r} means no file.", hint="Give ranges upwards, such as {0..3}.")
    if len(found) > MAX_SHARDS:
        raise InputError(f"{path!r} means more than {MAX_SHARDS:,} files.", hint="Give a narrower range.")
    if wrong := [name for name in found if not name.split("?")[0].lower().endswith(".tar")]:
        raise InputError(
            f"{wrong[0]!r} is not a .tar file.",
            why="Only tar files that are not compressed allow access to single images.",
            hint="Give shards such as shards/train-{0000..0003}.tar.",
        )
    if is_remote(path):
        discover.require("fsspec", "streaming")
        discover.require("aiohttp", "streaming")
        return found
    for name in found:
        if not os.path.isfile(name) and not glob.glob(name):
            raise InputError(
                f"There is no file {name!r}.", hint="Check the path and the range in the braces."
            )
    return sorted({file for name in found for file in ([name] if os.path.isfile(name) else glob.glob(name))})


def remote(url: str) -> Any:
    """The fsspec file system of a URL; cheap, and safe in every process."""
    import fsspec  # an extra, and heavy

    return fsspec.filesystem(url.split(":")[0])


def split_by_name(files: Iterable[str]) -> tuple[list[str], list[str]]:
    """(training, validation) files, by how their name or their folder begins.

    No validation files: an empty list. Validation files and nothing else are the whole set, as for evaluation;
    further kinds of validation files are left out.
    """
    by_kind: dict[str, list[str]] = {}
    for file in files:
        by_kind.setdefault(_kind(file), []).append(file)
    kinds = [name for name in VALIDATION_NAMES if name in by_kind]
    val = by_kind[kinds[0]] if kinds else []
    return (by_kind["train"], val) if "train" in by_kind else (val, [])


def _kind(file: str) -> str:
    *_, folder, name = ("", *file.replace(os.sep, "/").split("/"))
    for part in (name, folder):
        first = re.match("[a-z]*", part.lower())
        if first and first[0] in VALIDATION_NAMES:
            return first[0]
        if part.lower().startswith("train"):
            break
    return "train"


def short_names(files: list[str]) -> list[str]:
    """The names without the folder that all have in common."""
    folders = [file.split("/")[:-1] for file in files]
    levels = enumerate(zip(*folders, strict=False))
    common = next((number for number, names in levels if len(set(names)) > 1), min(map(len, folders)))
    return ["/".join(file.split("/")[common:]) for file in files]


def classes_file(shards: list[str]) -> tuple[str, bytes] | None:
    """Name and content of classes.txt: beside the first shard or, if that is in train/ or val/, above; None: absent."""
    folder, slash, _ = shards[0].split("?")[0].rpartition("/")
    above, _, name = folder.rpartition("/")
    places = [folder + slash, *([f"{above}/" if "/" in folder else ""] if name in SHARES else [])]
    for file in (place + CLASSES for place in places):
        try:
            return file, _read_url(file) if is_remote(file) else Path(file).read_bytes()
        except FileNotFoundError:
            continue
    return None


def _read_url(url: str) -> bytes:
    """A small file; FileNotFoundError where the server has none or, as storage services do, forbids to look."""
    import aiohttp  # an extra

    try:
        data: bytes = remote(url).cat_file(url)
    except aiohttp.ClientResponseError as error:
        if error.status in (403, 410):
            raise FileNotFoundError(url) from None
        raise unreachable(url, error) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise unreachable(url, error) from None
    return data


def unreachable(url: str, error: Exception) -> MissingError:
    """What a failing network is told as."""
    why = str(error) or type(error).__name__
    return MissingError(f"{url!r} cannot be read.", why=why, hint="Check the network, then resume.")


def remote_info(url: str) -> dict[str, Any]:
    """What the server tells of a file: size, ETag …; InputError when it has none such."""
    try:
        info: dict[str, Any] = remote(url).info(url)
    except FileNotFoundError as error:  # whatever went wrong; the cause says what
        raise InputError(
            f"{url!r} cannot be read.",
            why=str(error.__cause__ or error),
            hint="Check the address and the network.",
        ) from None
    return info


def fingerprint_of(shards: list[str]) -> str:
    """Name, size and age of every shard, whose content is not read, and the class names."""
    rows: list[list[Any]]
    if is_remote(shards[0]):
        with ThreadPoolExecutor(16) as pool:
            infos = pool.map(remote_info, shards)
            names = ("size", "ETag", "Last-Modified")
            rows = [
                [url, *(info.get(name) for name in names)] for url, info in zip(shards, infos, strict=True)
            ]
    else:
        files = zip(short_names(shards), map(os.stat, shards), strict=True)
        rows = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
    if classes := classes_file(shards):
        rows.append([CLASSES, hashlib.sha256(classes[1]).hexdigest(), None])
    return fingerprint.of_value(rows)


def _in_folder(root: Path) -> list[Path]:
    """The tar files in `root` and its train/, val/ …; none where there are class folders too."""
    shares = [root / name for name in SHARES if (root / name).is_dir()]
    folders = [entry for folder in (root, *shares) for entry in folder.iterdir() if entry.is_dir()]
    visible = [entry for entry in folders if entry.name[0] != "." and not (entry / ".store").is_dir()]
    if set(visible) - set(shares):
        return []
    return sorted(file for folder in (root, *shares) for file in folder.glob("*.tar") if file.is_file())


def _braces(pattern: str) -> Iterator[str]:
    """`a-{00..02}-{x,y}.tar` → its six names; numbers keep their width."""
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if not found:
        yield pattern
        return
    first, last, choices = found.groups()
    values: Iterable[str]
    if choices is not None:
        values = choices.split(",")
    else:
        values = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    for value in values:
        yield from _braces(pattern[: found.start()] + value + pattern[found.end() :])
