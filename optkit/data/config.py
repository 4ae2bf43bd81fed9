"""Which images to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from optkit.core import discover, fingerprint
from optkit.core.config import Config
from optkit.core.errors import InputError, MissingError, UsageError, closest
from optkit.data import hub, shards
from optkit.data.shards import VALIDATION_NAMES
from optkit.data.table import read_table

BUILT_IN = ("digits", "synthetic")


def source_name(path: str) -> str:
    """Which source reads `path`: a built-in set's own name, else what the path looks like."""
    if path in BUILT_IN:
        return path
    if hub.is_dataset(path):
        return "huggingface"
    if shards.is_sharded(path):
        return "webdataset"
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
    """A data set: class folders, a CSV of path,label, WebDataset shards, a Hugging Face or a built-in set."""

    path: str = Field(
        default="digits",
        description="Folder (train/ + val/, or class folders), CSV file (path,label), tar shards "
        "(shards/train-{0000..0003}.tar, a folder or URLs of them), hf:NAME, 'digits' or 'synthetic'.",
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


class TrainingDataConfig(DataConfig):
    """A data set to learn from."""

    check_leaks: bool = Field(
        default=True, description="Look for copies of validation images in training, and warn of them."
    )


class AugmentConfig(Config):
    """How training images are varied and drawn. `augment: false` in a recipe is short for `enabled: false`."""

    enabled: bool = Field(default=True, description="Random crops, and mirroring where labels allow it.")
    min_crop: float = Field(
        default=0.6, gt=0, le=1, description="Smallest share of the image in a random crop."
    )
    randaugment: int = Field(
        default=0, ge=0, le=30, description="Magnitude of RandAugment's two operations per image; 0: none."
    )
    erasing: float = Field(
        default=0.0, ge=0, le=1, description="Probability that a random rectangle of an image is erased."
    )
    sampling: Literal["natural", "balanced"] = Field(
        default="natural", description="balanced: every class is drawn equally often, whatever its size."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_switch(cls, value: Any) -> Any:
        return {"enabled": value} if isinstance(value, bool) else value

    def check(self) -> None:
        """Nothing is asked for that the main switch turns off."""
        if lost := [name for name in ("randaugment", "erasing") if getattr(self, name) and not self.enabled]:
            raise UsageError(
                f"{' and '.join(lost)} would do nothing, as augmentation is off.",
                hint=f"Leave out {' and '.join(lost)}, or enabled: false.",
            )


def _check_path(path: str) -> None:
    if path in BUILT_IN:
        return
    source = source_name(path)
    if source == "huggingface":
        hub.check(path)
        return
    if source == "webdataset":
        shards.find_shards(path)
        return
    if not Path(path).exists():
        raise InputError(
            f"There is no data folder or CSV file {path!r}.",
            hint=closest(path, BUILT_IN)
            + " Or give the path of a folder of images (in a recipe: --set data=FOLDER).",
        )
    is_csv = source == "csv"
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
    root, source = Path(path), source_name(path)
    if source == "huggingface":
        return hub.fingerprint_of(path)
    if source == "webdataset":
        return shards.fingerprint_of(shards.find_shards(path))
    if source == "csv":
        names = [name for name, _ in read_table(root)]
        return fingerprint.of_value([fingerprint.of_file(root), fingerprint.of_files(root.parent, names)])
    folders = [folder for share in shares(root) if share for folder in class_folders(share)]
    return fingerprint.of_value(
        [[folder.relative_to(root).as_posix(), fingerprint.of_tree(folder)] for folder in folders]
    )
