"""What every data source promises. A new file in optkit/data/sources is tested by being there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from optkit.core import discover
from optkit.core.progress import SilentReporter
from optkit.data.base import Dataset, ImageSet
from optkit.data.config import DataConfig, source_name
from optkit.data.load import load_data
from tests.data.photos import labelled, write_folder, write_shard

NAMES = discover.names("optkit.data.sources")


def _table(folder: Path) -> str:
    write_folder(folder)
    rows = [f"{label}/{name}.jpg,{label}" for name, label, _ in labelled(("cat", "dog"), 4)]
    (folder / "list.csv").write_text("path,label\n" + "\n".join(rows))
    return str(folder / "list.csv")


def _saved(folder: Path) -> str:
    datasets = pytest.importorskip("datasets", reason="needs optkit[hf]")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    rows = list(labelled(("cat", "dog"), 4))
    columns = {
        "image": [{"bytes": data, "path": f"{name}.jpg"} for name, _, data in rows],
        "label": [label for _, label, _ in rows],
    }
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))
    return str(folder)


def _shards(folder: Path) -> str:
    write_shard(folder / "a.tar", 2)
    write_shard(folder / "b.tar", 2, first=10)
    return str(folder)


MAKERS: dict[str, Callable[[Path], str]] = {
    "csv": _table,
    "digits": lambda folder: "digits",
    "huggingface": _saved,
    "imagefolder": lambda folder: str(write_folder(folder)),
    "synthetic": lambda folder: "synthetic",
    "webdataset": _shards,
}


@pytest.fixture(params=NAMES)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> DataConfig:
    path = MAKERS[request.param](tmp_path / "data")
    assert source_name(path) == request.param
    return DataConfig(path=path)


@pytest.fixture
def dataset(config: DataConfig) -> Dataset:
    return load_data(config, SilentReporter())


def test_images_labels_and_names_agree(dataset: Dataset) -> None:
    images = dataset.whole
    assert len(images) == len(images.ids) == len(images.labels) == len(images.identities) >= 8
    assert len(set(images.ids)) == len(images)
    assert len(set(images.identities)) == len(images)
    assert images.labels.dtype == np.int64
    assert set(images.labels.tolist()) == set(range(len(images.class_names)))
    assert images.open_image(len(images) - 1).mode == "RGB"


def test_stored_files_are_named_by_class_name_and_size(dataset: Dataset) -> None:
    images = dataset.whole
    if images.read_image is None:
        return
    for index in (0, len(images) - 1):
        size = len(images.read_image(index))
        name = images.class_names[images.labels[index]]
        assert images.identities[index].startswith(f"{name}/")
        assert images.identities[index].endswith(f":{size}")
        assert "/" not in images.identities[index].removeprefix(f"{name}/")


def test_a_subset_shows_its_own_images(dataset: Dataset) -> None:
    images = dataset.whole
    chosen = images.subset(np.array([5, 2]))
    assert chosen.ids == (images.ids[5], images.ids[2])
    assert chosen.open_image(1).tobytes() == images.open_image(2).tobytes()
    if images.read_image is not None:
        assert chosen.read_image(0) == images.read_image(5)


def test_the_same_set_is_listed_alike(config: DataConfig, dataset: Dataset) -> None:
    again = load_data(config, SilentReporter())
    assert (again.train.ids, again.train.identities) == (dataset.train.ids, dataset.train.identities)
    assert config.canonical() == config.canonical()
    config.check()


class _Sums(torch.utils.data.Dataset[int]):
    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return int(np.asarray(self._images.open_image(index), np.int64).sum())


def test_loader_processes_open_the_same_images(dataset: Dataset) -> None:
    here, there = (
        torch.cat(
            list(
                DataLoader(
                    _Sums(dataset.whole), batch_size=2, num_workers=workers, timeout=30 if workers else 0
                )
            )
        )
        for workers in (0, 2)
    )
    assert torch.equal(here, there)


def test_the_data_card_counts_every_class(dataset: Dataset) -> None:
    card = dataset.summary()
    train, val = np.array(list(card["per_class"].values())).sum(0)
    assert (train, val) == (len(dataset.train), len(dataset.val))
    assert card["images"]["sampled"] > 0
