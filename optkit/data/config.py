"""Which images to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from optkit.core import discover, fingerprint
from optkit.core.config import Config
from optkit.core.errors import InputError, MissingError, closest
from optkit.data.table import read_table

BUILT_IN = ("digits", "synthetic")
VALIDATION_NAMES = ("val", "valid", "validation", "test")


def source_name(path: str) -> str:
    """Which source reads `path`: a built-in set's own name, `csv` for a .csv file, else `imagefolder`."""
    if path in BUILT_IN:
        return path
    return "csv" if Path(path).suffix.lower() == ".csv" else "imagefolder"


def class_folders(folder: Path) -> list[Path]:
    """The sub-folders that hold images: neither hidden ones nor a store of runs, as in `--data .`."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and not (entry / ".store").is_dir()
    )


def shares(root: Path) -> tuple[Path, Path | None]:
    """Where the class folders of the training and validation images lie; None: nowhere of their own.

    Validation folders and nothing else: their first one is the whole set, as for evaluation.
    """
    val = next((root / name for name in VALIDATION_NAMES if (root / name).is_dir()), None)
    if (root / "train").is_dir():
        return root / "train", val
    alone = all(folder.name in VALIDATION_NAMES for folder in class_folders(root))
    return (val, None) if val and alone and class_folders(val) else (root, None)


class DataConfig(Config):
    """A data set: a folder of class folders, a CSV of path,label, or the name of a built-in set."""

    path: str = Field(
        default="digits",
        description="Folder (train/ + val/, or class folders), CSV file (path,label), 'digits' or 'synthetic'.",
    )
    val: str | None = Field(
        default=None,
        description="Folder or CSV of the validation images; default: train/ + val/, or a split.",
    )
    val_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="Share held out, stratified, when there is no validation set."
    )
    strict: bool = Field(default=False, description="Refuse corrupt images instead of skipping them.")

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    def canonical(self) -> dict[str, Any]:
        """Images by their listing, not by where the folder lies."""
        names = ("path", "val")
        prints = {name: _fingerprint(value) for name in names if (value := getattr(self, name)) is not None}
        return {**super().canonical(), **prints}

    def check(self) -> None:
        """The folder, file or built-in set exists."""
        paths = [path for path in (self.path, self.val) if path is not None]
        for path in paths:
            _check_path(path)
        if "digits" in paths and not discover.installed("sklearn"):
            raise MissingError(
                "The built-in set 'digits' needs scikit-learn.", hint="pip install 'optkit[demo]'"
            )


def _check_path(path: str) -> None:
    if path in BUILT_IN:
        return
    if not Path(path).exists():
        raise InputError(
            f"There is no data folder or CSV file {path!r}.",
            hint=closest(path, BUILT_IN) + " Or give the path of a folder of images.",
        )
    is_csv = source_name(path) == "csv"
    if not (Path(path).is_file() if is_csv else Path(path).is_dir()):
        raise InputError(
            f"{path!r} is {'a folder' if is_csv else 'neither a folder nor a .csv file'}.",
            hint="Give a folder with one sub-folder per class (unpack an archive first), "
            "or a .csv file with the columns path,label.",
        )


def _fingerprint(path: str) -> str:
    if path in BUILT_IN:
        return path
    _check_path(path)
    root = Path(path)
    if source_name(path) == "csv":
        names = [name for name, _ in read_table(root)]
        return fingerprint.of_value([fingerprint.of_file(root), fingerprint.of_files(root.parent, names)])
    folders = [folder for share in shares(root) if share for folder in class_folders(share)]
    return fingerprint.of_value(
        [[folder.relative_to(root).as_posix(), fingerprint.of_tree(folder)] for folder in folders]
    )
