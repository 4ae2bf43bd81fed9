"""Hugging Face data sets: from the hub, from Parquet files, or as `save_to_disk` wrote them.

The package `datasets` finds the rows and maps them into memory; images are decoded by optkit alone, and no
code that comes with a data set is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.core.errors import InputError
from optkit.data import hub
from optkit.data.base import CorruptImage, ImageSet, Listing
from optkit.data.config import DataConfig
from optkit.data.images import MAX_IMAGE_BYTES, decode_rgb, read_file
from optkit.data.load import relabel
from optkit.data.shards import VALIDATION_NAMES, split_by_name
from optkit.data.table import class_order

if TYPE_CHECKING:
    import datasets

# What the package may read with: formats that hold data and nothing to run.
READERS = ("parquet", "arrow", "imagefolder")


def load(path: str, config: DataConfig) -> Listing:
    """Classes are those of the label column that have images, in the column's order."""
    hub.check(path)
    splits, folders = _splits(path)
    corrupt: list[dict[str, str]] = []
    first = "train" if "train" in splits else next(iter(splits))
    train = _image_set(splits[first], first, folders, corrupt)
    if train is None:
        raise InputError(
            f"{path!r} has no labelled image in {first!r}.", hint="Give a set for classification."
        )
    for name in VALIDATION_NAMES:
        if name in splits and name != first and (val := _image_set(splits[name], name, folders, corrupt)):
            return Listing(train=train, val=relabel(val, train.class_names), corrupt=corrupt)
    return Listing(train=train, corrupt=corrupt)


def _splits(path: str) -> tuple[dict[str, datasets.Dataset], list[Path]]:
    """The rows of every split, mapped into memory, and the folders that their images may lie in as files."""
    import datasets  # an extra: only this source needs it

    root = hub.local(path)
    folders: list[Path] = []  # Parquet holds its images, so a path in it could only be to spy with
    try:
        if root is not None and hub.is_saved(root):
            found: Any = datasets.load_from_disk(str(root.resolve()))
            folders = [root.resolve(), *_caches()]
        elif root is not None:
            found = _from_parquet(root)
        else:
            found, reader = _from_hub(path)
            folders = [] if reader == "parquet" else _caches()
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path!r} cannot be loaded.", why=lines[0], hint="Check the data set.") from None
    return {"train": found} if isinstance(found, datasets.Dataset) else dict(found), folders


def _caches() -> list[Path]:
    """Where the packages keep what they load from the hub."""
    import datasets
    from huggingface_hub import constants

    return [Path(folder).resolve() for folder in (datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE)]


def _from_parquet(root: Path) -> Any:
    import datasets

    train, val = split_by_name(str(file.resolve()) for file in hub.parquet_files(root))
    shares = {name: files for name, files in (("train", train), ("val", val)) if files}
    return datasets.load_dataset("parquet", data_files=shares)


def _from_hub(path: str) -> tuple[Any, str]:
    """The data set, and what it was read with."""
    import datasets

    name, configuration = hub.hub_name(path)
    builder = datasets.load_dataset_builder(name, name=configuration, revision=hub.revision(path))
    reader = type(builder).__module__.rpartition(".")[2]
    if reader not in READERS:
        raise InputError(
            f"The data set {name!r} is kept in a form that is not read ({reader}).",
            why=f"Only {', '.join(READERS)} are.",
            hint="Load it with the package datasets, save_to_disk, and give that folder.",
        )
    builder.download_and_prepare()
    return builder.as_dataset(), reader


def _image_set(
    rows: datasets.Dataset, split: str, folders: list[Path], corrupt: list[dict[str, str]]
) -> ImageSet | None:
    """The labelled images of a split; None when there are none."""
    import datasets

    image, label = _columns(rows)
    names = getattr(rows.features[label], "names", None)
    values = _column(rows, label).to_pylist()
    texts = [_text(value, names) for value in values]
    rows = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    files, sizes = _files(rows, image, folders)
    ids = [f"{split}/{number:07d}" for number in range(len(texts))]
    kept = [number for number, text in enumerate(texts) if text is not None]
    if not kept:
        return None
    corrupt += [
        {"file": ids[i], "reason": _why_none(values[i], names)}
        for i, text in enumerate(texts)
        if text is None
    ]
    used = {text for text in texts if text is not None}
    order = class_order(used) if names is None else [name for name in names if name in used]
    index = {name: number for number, name in enumerate(order)}

    def read_image(i: int) -> bytes:
        return _read(rows[kept[i]][image], folders)

    return ImageSet(
        class_names=tuple(order),
        ids=tuple(ids[i] for i in kept),
        labels=np.array([index[texts[i]] for i in kept], np.int64),
        open_image=lambda i: decode_rgb(read_image(i)),
        identities=tuple(f"{texts[i]}/{files[i] or ids[i].replace('/', '-')}:{sizes[i]}" for i in kept),
        read_image=read_image,
    )


def _columns(rows: datasets.Dataset) -> tuple[str, str]:
    """The names of the image and the label column, by their types; InputError when that is ambiguous."""
    import datasets

    kinds = rows.features.items()
    images = [name for name, kind in kinds if isinstance(kind, datasets.Image)]
    classes = [name for name, kind in kinds if isinstance(kind, datasets.ClassLabel)]
    plain = [name for name, kind in kinds if isinstance(kind, datasets.Value) and name == "label"]
    labels = [name for name in classes if name == "label"] or classes or plain
    if len(images) != 1 or len(labels) != 1:
        raise InputError(
            f"The data set has {len(images)} image and {len(labels)} label columns; one of each is needed.",
            why=f"Its columns: {', '.join(f'{name} ({type(kind).__name__})' for name, kind in kinds)}.",
            hint="Keep one column of each: dataset.select_columns, cast_column, then save_to_disk.",
        )
    return images[0], labels[0]


def _column(rows: datasets.Dataset, name: str) -> Any:
    """A column as Arrow keeps it: not copied."""
    return rows.select_columns([name]).with_format("arrow")[:].column(name)


def _files(rows: datasets.Dataset, image: str, folders: list[Path]) -> tuple[list[str], list[int]]:
    """File name, where known, and length in bytes of every image; its content is not read."""
    import pyarrow.compute as pc

    column = _column(rows, image)
    sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
    paths = [Path(path or "") for path in pc.struct_field(column, "path").to_pylist()]
    of_files = (
        path.stat().st_size if size is None and _may_read(path, folders) else size
        for path, size in zip(paths, sizes, strict=True)
    )
    return [path.name for path in paths], [size or 0 for size in of_files]


def _text(value: Any, names: list[str] | None) -> str | None:
    """The class name of a label; None for none: null, -1 in a split that is for contests, or an unknown one."""
    if value is None or (isinstance(value, int) and value < 0):
        return None
    if names is None:
        return str(value)
    return names[value] if value < len(names) else None


def _why_none(value: Any, names: list[str] | None) -> str:
    return (
        f"label {value} of {len(names)} classes" if names and value is not None and value >= 0 else "no label"
    )


def _may_read(path: Path, folders: list[Path]) -> bool:
    """Whether `path`, which comes from outside, is a file in one of `folders`."""
    try:
        real = path.resolve()
        return any(real.is_relative_to(folder) for folder in folders) and real.is_file()
    except (OSError, RuntimeError, ValueError):  # a circle of links, a name that cannot be
        return False


def _read(cell: dict[str, Any] | None, folders: list[Path]) -> bytes:
    """The encoded image; CorruptImage for a file that is too large or lies outside `folders`."""
    if cell and cell["bytes"]:
        data: bytes = cell["bytes"]
        return data
    if cell and cell["path"]:
        path = Path(cell["path"])
        if not _may_read(path, folders):
            raise CorruptImage("no image in the data set, and no file in its folder")
        if path.stat().st_size > MAX_IMAGE_BYTES:
            raise CorruptImage("too large a file")
        return read_file(path)
    raise CorruptImage("no image")
