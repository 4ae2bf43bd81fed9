"""Hugging Face data sets: Parquet files, saved sets, and which revision of a set on the hub is meant."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from optkit.core import discover
from optkit.core.errors import InputError, MissingError
from optkit.core.progress import SilentReporter
from optkit.data import hub
from optkit.data.base import CorruptImage, Dataset
from optkit.data.config import DataConfig, source_name
from optkit.data.load import load_data
from optkit.data.sources import huggingface as source
from tests.data.photos import jpeg, labelled

datasets = pytest.importorskip("datasets", reason="needs optkit[hf]")
pyarrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def load(path: Path | str, **options: object) -> Dataset:
    return load_data(DataConfig(path=str(path), **options), SilentReporter())


def rows(
    each: int, first: int = 0, names: tuple[str, ...] = ("cat", "dog"), **columns: list[object]
) -> datasets.Dataset:
    found = list(labelled(("cat", "dog"), each, first))
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list(names))}
    content: dict[str, list[object]] = {
        "picture": [{"bytes": data, "path": None} for _, _, data in found],
        "kind": [name for _, name, _ in found],
    }
    features |= {name: datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(content | columns, features=datasets.Features(features))


def test_a_saved_set_with_splits(tmp_path: Path) -> None:
    splits = {"train": rows(4), "test": rows(1, 50), "validation": rows(2, 40)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "set"))
    for path in (str(tmp_path / "set"), f"hf:{tmp_path / 'set'}"):
        assert source_name(path) == "huggingface"
        DataConfig(path=path).check()
        data = load(path)
        assert (len(data.train), len(data.val), data.whole) == (8, 4, None)
        assert data.val.read_image(0) == jpeg(40)
        assert data.val.identities[0] == f"cat/validation-0000000:{len(jpeg(40))}"


def test_parquet_files_are_split_by_their_names(tmp_path: Path) -> None:
    for name, each, first in (("train-00000-of-00001", 4, 0), ("test-00000-of-00001", 2, 50)):
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        rows(each, first).to_parquet(str(tmp_path / "set" / "data" / f"{name}.parquet"))
    data = load(f"hf:{tmp_path / 'set'}")
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.val), data.whole) == (8, 4, None)
    alone = load(f"hf:{tmp_path / 'set' / 'data' / 'test-00000-of-00001.parquet'}")
    assert len(alone.whole) == 4
    assert alone.whole.open_image(3).size == (24, 20)


def test_classes_keep_their_order_and_those_without_images_go(tmp_path: Path) -> None:
    rows(2, names=("wolf", "dog", "cat")).save_to_disk(str(tmp_path / "set"))
    data = load(tmp_path / "set")
    assert data.class_names == ("dog", "cat")
    assert data.whole.labels.tolist() == [1, 1, 0, 0]


def test_plain_labels_and_file_names(tmp_path: Path) -> None:
    found = list(labelled(("10", "9"), 2))
    content = {
        "image": [{"bytes": data, "path": f"/far/away/{name}.jpg"} for name, _, data in found],
        "label": [name for _, name, _ in found],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(content, features=features).save_to_disk(str(tmp_path / "set"))
    data = load(tmp_path / "set")
    assert data.class_names == ("9", "10")
    assert data.whole.identities[0] == f"10/0000.jpg:{len(found[0][2])}"


def test_rows_without_label_or_image(tmp_path: Path) -> None:
    content = {
        "image": [{"bytes": jpeg(i), "path": None} for i in range(4)] + [None, {"bytes": b"x", "path": None}],
        "label": [0, 1, 1, -1, 0, 0],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    whole = datasets.Dataset.from_dict(content, features=features)
    contest = whole.select([3])
    datasets.DatasetDict({"train": whole, "test": contest}).save_to_disk(str(tmp_path / "set"))
    data = load(tmp_path / "set")
    assert data.listing.corrupt == [{"file": "train/0000003", "reason": "no label"}]
    assert len(data.whole) == 5  # a split without labels is none to validate on
    with pytest.raises(CorruptImage, match="no image"):
        data.whole.open_image(3)
    with pytest.raises(CorruptImage, match="not an image"):
        data.whole.open_image(4)


def test_columns_must_be_clear(tmp_path: Path) -> None:
    two = rows(2).add_column("other", [0, 1, 0, 1])
    two = two.cast_column("other", datasets.ClassLabel(names=["x", "y"]))
    two.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(InputError, match="1 image and 2 label columns") as caught:
        load(tmp_path / "two")
    assert "other (ClassLabel)" in caught.value.why


def test_labels_in_val_that_training_lacks(tmp_path: Path) -> None:
    val = rows(2, names=("cat", "dog"))
    train = val.filter(lambda row: row["kind"] == 0)
    datasets.DatasetDict({"train": train, "test": val}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(InputError, match="training lacks: dog"):
        load(tmp_path / "set")


@pytest.mark.parametrize("path", ["hf:no such/thing/here", "hf:./absent", "hf:absent.parquet"])
def test_what_names_no_data_set(path: str) -> None:
    with pytest.raises(InputError, match="no data set"):
        DataConfig(path=path).check()


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no Hugging Face data set"):
        DataConfig(path=f"hf:{tmp_path}").check()
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be loaded"):
        load(f"hf:{tmp_path}")


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    rows(2).save_to_disk(str(tmp_path / "set"))
    config = DataConfig(path=str(tmp_path / "set"))
    before = config.canonical()
    load(tmp_path / "set")
    assert config.canonical() == before
    rows(3).save_to_disk(str(tmp_path / "set"))
    assert config.canonical() != before


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "installed", lambda module: False)
    with pytest.raises(MissingError, match="not installed") as caught:
        DataConfig(path="hf:mnist").check()
    assert "optkit[hf]" in caught.value.hint


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that knows the commit of org/set; yields the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            found = self.path == "/api/datasets/org/set"
            self.send_response(200 if found else 404)
            self.end_headers()
            if found:
                self.wfile.write(json.dumps({"sha": "abc"}).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setattr(
            "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{running.server_address[1]}"
        )
        yield asked
        running.shutdown()
        thread.join()


def test_a_set_on_the_hub_is_known_by_its_commit(
    hub_server: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert hub.revision("hf:org/set:small") == "abc"
    small, large = (DataConfig(path=f"hf:org/set:{name}").canonical() for name in ("small", "large"))
    assert small != large
    with pytest.raises(MissingError, match="'org/other' cannot be reached"):
        hub.revision("hf:org/other")
    cached = tmp_path / "datasets--org--other" / "refs" / "main"
    cached.parent.mkdir(parents=True)
    cached.write_text("def\n")
    assert hub.revision("hf:org/other") == "def"
    assert set(hub_server) == {"/api/datasets/org/set", "/api/datasets/org/other"}


def by_path(paths: list[Path]) -> datasets.Dataset:
    """Rows that hold no image but the path of one."""
    content = {
        "image": [{"bytes": None, "path": str(path)} for path in paths],
        "label": [index % 2 for index in range(len(paths))],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    return datasets.Dataset.from_dict(content, features=features)


def secret(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "secret.jpg").write_bytes(jpeg(7))
    return folder / "secret.jpg"


def test_a_parquet_file_reads_no_other_file(tmp_path: Path) -> None:
    root = tmp_path / "set"
    paths = [secret(tmp_path), secret(root), secret(tmp_path), secret(root)]
    pq.write_table(by_path(paths).data.table, str(root / "x.parquet"))
    whole = load(f"hf:{root}").whole
    for index in range(4):
        assert whole.identities[index].endswith(":0")  # not even its size
        with pytest.raises(CorruptImage, match="no file in its folder"):
            whole.read_image(index)


def test_a_saved_set_reads_files_in_its_folder_and_the_cache_alone(tmp_path: Path) -> None:
    root = tmp_path / "set"
    inside, cached, outside = (secret(folder) for folder in (root, tmp_path / "cache", tmp_path))
    (root / "link.jpg").symlink_to(outside)
    (root / "folder.jpg").mkdir()
    paths = [inside, cached, outside, root / "link.jpg", root / "folder.jpg", root / ".." / outside.name]
    by_path([inside] * len(paths)).save_to_disk(str(root))
    rows = by_path(paths)
    stored = next(root.glob("*.arrow"))
    with (
        pyarrow.OSFile(str(stored), "wb") as stream,
        pyarrow.ipc.new_stream(stream, rows.data.schema) as writer,
    ):
        writer.write_table(rows.data.table)  # save_to_disk would put the images in
    whole = load(root).whole
    assert whole.read_image(0) == whole.read_image(1) == jpeg(7)
    for index in range(2, 6):
        with pytest.raises(CorruptImage, match="no file in its folder"):
            whole.read_image(index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "MAX_IMAGE_BYTES", 100)
        with pytest.raises(CorruptImage, match="too large"):
            whole.read_image(0)


def test_a_label_beyond_the_names_is_left_out_and_named(tmp_path: Path) -> None:
    whole = rows(3)
    table = whole.data.table
    column = table.schema.get_field_index("kind")
    table = table.set_column(column, table.schema.field(column), pyarrow.array([0, 0, 7, 1, 1, 1], "int64"))
    (tmp_path / "set").mkdir()
    pq.write_table(table, str(tmp_path / "set" / "x.parquet"))
    data = load(f"hf:{tmp_path / 'set'}")
    assert len(data.whole) == 5
    assert data.listing.corrupt == [{"file": "train/0000002", "reason": "label 7 of 2 classes"}]
