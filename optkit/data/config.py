"""Which images to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from optkit.core import discover, fingerprint
from optkit.core.config import Config
from optkit.core.errors import InputError, MissingError, closest

BUILT_IN = ("digits", "synthetic")


def source_name(path: str) -> str:
    """Which source reads `path`: a built-in set's own name, `csv` for a .csv file, else `imagefolder`."""
    if path in BUILT_IN:
        return path
    return "csv" if Path(path).suffix.lower() == ".csv" else "imagefolder"


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
        for path in filter(None, (self.path, self.val)):
            if path not in BUILT_IN and not Path(path).exists():
                raise InputError(
                    f"There is no data folder or CSV file {path!r}.",
                    hint=closest(path, BUILT_IN) + " Or give the path of a folder of images.",
                )
        if self.path == "digits" and not discover.installed("sklearn"):
            raise MissingError(
                "The built-in set 'digits' needs scikit-learn.", hint="pip install 'optkit[demo]'"
            )


def _fingerprint(path: str) -> str:
    if path in BUILT_IN:
        return path
    if source_name(path) == "csv":  # the images lie beside it, relative to it
        file = Path(path)
        return fingerprint.of_value([fingerprint.of_path(file), fingerprint.of_tree(file.parent)])
    return fingerprint.of_path(Path(path))
