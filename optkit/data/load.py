"""Open the data set that a config names."""

from __future__ import annotations

from optkit.core import discover
from optkit.core.errors import InputError
from optkit.core.progress import Reporter
from optkit.data.base import Dataset
from optkit.data.config import DataConfig, source_name


def load_data(config: DataConfig, seed: int, reporter: Reporter) -> Dataset:
    """Read the listing, hold out a validation share where there is none, and leave out corrupt files."""
    source = discover.load("optkit.data.sources", source_name(config.path), "data source")
    dataset: Dataset = source.load(config, seed)
    if dataset.corrupt:
        shown = ", ".join(f"{entry['file']} ({entry['reason']})" for entry in dataset.corrupt[:5])
        more = f" and {len(dataset.corrupt) - 5} more" if len(dataset.corrupt) > 5 else ""
        if config.strict:
            raise InputError(
                f"{len(dataset.corrupt)} corrupt images: {shown}{more}.",
                why="--strict refuses corrupt images.",
                hint="Mend or remove them, or leave --strict out to skip them.",
            )
        reporter.warn(f"Skipped {len(dataset.corrupt)} corrupt images: {shown}{more}.")
    return dataset
