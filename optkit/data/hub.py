"""Which Hugging Face data set a path means; light, as the fingerprint of a config needs it too."""

from __future__ import annotations

import json
import re
from pathlib import Path

from optkit.core import discover, fingerprint
from optkit.core.errors import InputError, MissingError

PREFIX = "hf:"
SAVED = ("dataset_dict.json", "state.json")  # written by `save_to_disk`, of several splits and of one


def is_dataset(path: str) -> bool:
    """Whether `path` is `hf:…` or a folder written by `datasets.save_to_disk`."""
    return path.startswith(PREFIX) or is_saved(Path(path))


def is_saved(folder: Path) -> bool:
    """Whether the folder was written by `datasets.save_to_disk`."""
    return any((folder / name).is_file() for name in SAVED)


def local(path: str) -> Path | None:
    """The folder or Parquet file that `path` means, None when it names a data set of the hub."""
    found = Path(path.removeprefix(PREFIX))
    return found if found.exists() else None


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files that a folder holds, or the one that `folder` is."""
    return [folder] if folder.is_file() else sorted(folder.rglob("*.parquet"))


def hub_name(path: str) -> tuple[str, str | None]:
    """(name, configuration) of a data set of the hub; InputError for what cannot be one."""
    found = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)(?::([\w.-]+))?", path.removeprefix(PREFIX))
    if not found or path.endswith(".parquet") or path.removeprefix(PREFIX).startswith("."):
        raise InputError(
            f"There is no data set {path!r}.",
            hint="Give hf:NAME, hf:NAME:CONFIGURATION, hf:FOLDER or hf:FILE.parquet.",
        )
    return found[1], found[2]


def check(path: str) -> None:
    """The package is installed, and what lies here can be read."""
    discover.require("datasets", "hf")
    root = local(path)
    if root is None:
        hub_name(path)
    elif not is_saved(root) and not any(file.suffix == ".parquet" for file in parquet_files(root)):
        raise InputError(
            f"{str(root)!r} is no Hugging Face data set.",
            why="It holds neither Parquet files nor what save_to_disk writes.",
            hint="Leave hf: out for a folder of photos.",
        )


def revision(path: str) -> str:
    """The commit of a data set of the hub, from the hub or, without network, from the local cache."""
    import urllib.request  # slow to import, as is the next one, and most data is on the disk

    from huggingface_hub import constants, get_token

    name, _ = hub_name(path)
    address = f"{constants.ENDPOINT}/api/datasets/{name}"
    headers = {"Authorization": f"Bearer {token}"} if (token := get_token()) else {}
    try:
        request = urllib.request.Request(address, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["sha"])
    except (OSError, ValueError, KeyError) as error:
        cached = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "refs" / "main"
        if cached.is_file():
            return cached.read_text().strip()
        raise MissingError(
            f"The data set {name!r} cannot be reached.",
            why=str(error),
            hint="Check the name and the network, or give a folder of Parquet files as hf:FOLDER.",
        ) from None


def fingerprint_of(path: str) -> str:
    """Names, sizes and times of the files here, or the commit of the data set of the hub."""
    check(path)
    root = local(path)
    if root is None:
        return fingerprint.of_value([*hub_name(path), revision(path)])
    files = sorted(root.rglob("*")) if is_saved(root) else parquet_files(root)
    base = root.parent if root.is_file() else root
    return fingerprint.of_files(base, [file.relative_to(base).as_posix() for file in files])
