"""WebDataset shards: which files are meant, what lies in them, and tars that mean harm."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from optkit.core.errors import InputError
from optkit.core.progress import SilentReporter
from optkit.data import tars
from optkit.data.base import CorruptImage, Dataset
from optkit.data.config import DataConfig, source_name
from optkit.data.load import load_data
from optkit.data.shards import find_shards
from tests.data.photos import jpeg, write_folder, write_shard, write_tar


def load(path: Path | str, **options: object) -> Dataset:
    return load_data(DataConfig(path=str(path), **options), SilentReporter())


def corrupt(data: Dataset) -> dict[str, str]:
    return {entry["file"]: entry["reason"] for entry in data.listing.corrupt}


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("train-{0000..0002}.tar", 3),
        ("train-{0000,0002}.tar", 2),
        ("{train,val}-000{0..0}.tar", 2),
        ("train-*.tar", 3),
        ("train-0001.tar", 1),
        ("", 4),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, count: int) -> None:
    for number, name in enumerate(("train-0000", "train-0001", "train-0002", "val-0000")):
        write_shard(tmp_path / f"{name}.tar", 2, first=10 * number)
    path = str(tmp_path / pattern)
    assert source_name(path) == "webdataset"
    assert len(find_shards(path)) == count
    DataConfig(path=path).check()
    data = load(path)
    assert len(data.train) + len(data.val) == 4 * count


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train-{0000..0002}.tar", r"no file '.*train-0001\.tar'"),
        ("{0..999999}.tar", "more than 100,000 files"),
        ("*-x.tar", "no file"),
        ("x-{3..1}.tar", "means no file"),
        ("https://example.org/photos.zip", "not a .tar file"),
    ],
)
def test_wrong_patterns(tmp_path: Path, pattern: str, message: str) -> None:
    write_shard(tmp_path / "train-0000.tar")
    with pytest.raises(InputError, match=message):
        DataConfig(path=pattern if "://" in pattern else str(tmp_path / pattern)).check()


@pytest.mark.parametrize("names", [("train-0.tar", "val-0.tar"), ("train/0.tar", "val/0.tar")])
def test_training_and_validation_shards(tmp_path: Path, names: tuple[str, str]) -> None:
    write_shard(tmp_path / names[0], 4)
    write_shard(tmp_path / names[1], 1, first=50)
    write_shard(tmp_path / names[1].replace("val", "test"), 3, first=60)
    data = load(tmp_path)
    assert (len(data.train), len(data.val), data.whole) == (8, 2, None)
    assert data.val.ids == (f"{names[1]}/0050.jpg", f"{names[1]}/0051.jpg")
    alone = load(tmp_path / names[1])
    assert len(alone.whole) == 2


def test_other_names_are_split_as_photos_are(tmp_path: Path) -> None:
    write_shard(tmp_path / "valley-0.tar", 10)
    data = load(tmp_path, val_fraction=0.3)
    assert (len(data.train), len(data.val)) == (14, 6)
    write_folder(tmp_path / "photos", 10)
    assert data.trained_on() == load(tmp_path / "photos", val_fraction=0.3).trained_on()


def test_a_folder_of_photos_with_an_archive_in_it_stays_one(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_shard(tmp_path / "old.tar")
    assert source_name(str(tmp_path)) == "imagefolder"


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (("10", "9"), None, ("9", "10")),
        (("1", "0"), "cat\ndog\n", ("cat", "dog")),
        (("2", "0"), "cat\nfox\ndog\n", ("cat", "dog")),
        (("dog", "cat"), "dog\ncat\n", ("dog", "cat")),
    ],
)
def test_class_names(
    tmp_path: Path, labels: tuple[str, str], classes: str | None, expected: tuple[str, ...]
) -> None:
    members: dict[str, bytes] = {}
    for index in range(4):
        members |= {f"{index}.jpg": jpeg(index), f"{index}.cls": labels[index % 2].encode()}
    write_tar(tmp_path / "x.tar", members)
    if classes:
        (tmp_path / "classes.txt").write_text(classes)
    data = load(tmp_path / "x.tar")
    assert data.class_names == expected
    first = data.whole.class_names[data.whole.labels[0]]
    assert first == ({"1": "dog", "2": "dog"}.get(labels[0], labels[0]) if classes else labels[0])


@pytest.mark.parametrize(
    ("text", "message"), [("cat\n", "has the label '1'"), ("cat\ncat\n", "names a class twice")]
)
def test_a_wrong_list_of_classes(tmp_path: Path, text: str, message: str) -> None:
    write_tar(tmp_path / "x.tar", {"0.jpg": jpeg(0), "0.cls": b"0", "1.jpg": jpeg(1), "1.cls": b"1"})
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x.tar")


def test_labels_in_json_and_images_in_folders(tmp_path: Path) -> None:
    members = {
        "deep/a.jpg": jpeg(0),
        "deep/a.json": b'{"label": "cat", "more": 1}',
        "b.seg.png": b"another thing",
        "b.PNG": jpeg(1, kind="PNG"),
        "b.json": b'{"label": 7}',
    }
    data = load(write_tar(tmp_path / "x.tar", members))
    assert data.class_names == ("7", "cat")
    assert data.whole.ids == ("x.tar/deep/a.jpg", "x.tar/b.PNG")
    assert data.whole.identities[0] == f"cat/a.jpg:{len(members['deep/a.jpg'])}"
    assert data.whole.open_image(1).size == (24, 20)
    assert corrupt(data) == {}


def test_what_is_wrong_is_left_out_and_named(tmp_path: Path) -> None:
    good = {f"{i}.jpg": jpeg(i) for i in range(4)} | {f"{i}.cls": str(i % 2).encode() for i in range(4)}
    bad = {
        "empty.jpg": b"",
        "empty.cls": b"0",
        "lone.jpg": jpeg(9),
        "list.jpg": jpeg(10),
        "list.json": b'{"label": [1]}',
        "deep.jpg": jpeg(11),
        "deep.json": b"[" * 100_000,
        "true.jpg": jpeg(12),
        "true.json": b'{"label": true}',
        "noise.jpg": b"not an image",
        "noise.cls": b"0",
    }
    data = load(write_tar(tmp_path / "x.tar", good | bad))
    assert len(data.whole) == 5
    assert corrupt(data) == {
        "x.tar/empty.jpg": "empty file",
        "x.tar/lone.jpg": "no label: lone.cls or lone.json",
        "x.tar/list.json": "no label in it",
        "x.tar/list.jpg": "no label: list.cls or list.json",
        "x.tar/deep.json": "not a label",
        "x.tar/deep.jpg": "no label: deep.cls or deep.json",
        "x.tar/true.json": "no label in it",
        "x.tar/true.jpg": "no label: true.cls or true.json",
    }
    with pytest.raises(CorruptImage, match="not an image"):
        data.whole.open_image(4)
    with pytest.raises(InputError, match="corrupt images"):
        load(tmp_path / "x.tar", strict=True)


def test_links_devices_and_paths_outside_touch_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(99))
    shard = write_shard(tmp_path / "x.tar", 2)
    with tarfile.open(shard, "a") as archive:
        for name, kind in (
            ("l.jpg", tarfile.SYMTYPE),
            ("h.jpg", tarfile.LNKTYPE),
            ("d.jpg", tarfile.CHRTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, str(secret)
            archive.addfile(entry)
        for name, data in (("../../up.jpg", jpeg(50)), ("../../up.cls", b"cat")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    data = load(shard)
    assert len(data.whole) == 5
    assert data.whole.ids[-1] == "x.tar/../../up.jpg"
    assert sorted(path.name for path in tmp_path.parent.rglob("up*")) == []


def add_header(shard: Path, kind: bytes, size: int) -> None:
    """Put a header that claims `size` bytes behind the last member."""
    with tarfile.open(shard) as archive:
        last = archive.getmembers()[-1]
    end = last.offset_data + (last.size + 511) // 512 * 512
    entry = tarfile.TarInfo("x.jpg")
    entry.type, entry.size = kind, size
    shard.write_bytes(shard.read_bytes()[:end] + entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize(
    ("kind", "size", "reason"),
    [
        (tarfile.XHDTYPE, 1 << 40, "impossible length"),
        (tarfile.GNUTYPE_LONGNAME, 1 << 40, "impossible length"),
        (tarfile.REGTYPE, -4096, ""),
    ],
)
def test_a_header_cannot_claim_the_memory_or_lead_back(
    tmp_path: Path, kind: bytes, size: int, reason: str
) -> None:
    shard = write_shard(tmp_path / "x.tar", 2)
    add_header(shard, kind, size)
    data = load(shard)
    assert len(data.whole) == 4
    assert reason in corrupt(data)["x.tar"]


def test_an_image_that_is_too_large_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{i}.jpg": jpeg(i) for i in range(4)} | {f"{i}.cls": str(i % 2).encode() for i in range(4)}
    monkeypatch.setattr(tars, "MAX_IMAGE_BYTES", len(members["0.jpg"]) + 5000)
    members |= {"4.jpg": jpeg(4) + bytes(6000), "4.cls": b"0"}
    data = load(write_tar(tmp_path / "x.tar", members))
    assert corrupt(data)["x.tar/4.jpg"] == "too large a file"


def test_a_tar_that_is_cut_off_keeps_its_beginning(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "x.tar", 4)
    with tarfile.open(shard) as archive:
        last = archive.getmembers()[-2]
    shard.write_bytes(shard.read_bytes()[: last.offset_data + 100])
    data = load(shard)
    assert len(data.whole) == 7
    assert corrupt(data)["x.tar/0007.jpg"] == "cut off"


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable tar file|no labelled image"):
        load(tmp_path / "x.tar")


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(InputError, match="not a readable tar file") as caught:
        load(tmp_path / "x.tar")
    assert "without compression" in caught.value.hint


def test_photos_without_labels_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labelled image") as caught:
        load(write_tar(tmp_path / "x.tar", {"cat/0.jpg": jpeg(0)}))
    assert "no label: cat/0.cls" in caught.value.why


def test_classes_that_training_lacks_and_one_class_only(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar")
    write_shard(tmp_path / "val-0.tar", classes=("cat", "wolf"))
    with pytest.raises(InputError, match="training lacks: wolf"):
        load(tmp_path)
    with pytest.raises(InputError, match="one class only"):
        load(write_shard(tmp_path / "one" / "x.tar", classes=("cat",)))


def test_the_fingerprint_follows_the_shards_and_the_classes(tmp_path: Path) -> None:
    write_shard(tmp_path / "a" / "x.tar")
    config = DataConfig(path=str(tmp_path / "a"))
    before = config.canonical()["path"]
    assert config.canonical()["path"] == before
    (tmp_path / "a").rename(tmp_path / "b")
    config = DataConfig(path=str(tmp_path / "b"))
    assert config.canonical()["path"] == before
    (tmp_path / "b" / "classes.txt").write_text("dog\ncat\n")
    named = config.canonical()["path"]
    write_shard(tmp_path / "b" / "y.tar", first=20)
    assert len({before, named, config.canonical()["path"]}) == 3


def test_a_tar_that_changes_later_is_noticed(tmp_path: Path) -> None:
    data = load(write_shard(tmp_path / "x.tar"))
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(CorruptImage, match="has changed"):
        data.whole.open_image(0)
    (tmp_path / "x.tar").unlink()
    with pytest.raises(CorruptImage):
        data.whole.open_image(0)


def test_memory_holds_the_index_alone(tmp_path: Path) -> None:
    members = {f"{i}.jpg": jpeg(i) + bytes(1_000_000) for i in range(20)}
    members |= {f"{i}.cls": str(i % 2).encode() for i in range(20)}
    shard = write_tar(tmp_path / "x.tar", members)
    tracemalloc.start()
    data = load(shard)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data.whole) == 20
    assert peak < 2_000_000
    assert np.asarray(data.whole.open_image(19)).shape == (20, 24, 3)


@pytest.mark.parametrize("each", [0, 2])
def test_long_names_of_long_names_are_a_broken_tar(tmp_path: Path, each: int) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1
    nested = (entry.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 3000
    start = b""
    if each:
        shard = write_shard(tmp_path / "x.tar", each)
        with tarfile.open(shard) as archive:
            last = archive.getmembers()[-1]
        start = shard.read_bytes()[: last.offset_data + (last.size + 511) // 512 * 512]
    (tmp_path / "x.tar").write_bytes(start + nested)
    if each:
        assert "recursion" in corrupt(load(tmp_path / "x.tar"))["x.tar"]
    else:
        with pytest.raises(InputError, match="not a readable tar file"):
            load(tmp_path / "x.tar")


def test_a_label_without_an_image_is_told(tmp_path: Path) -> None:
    members = {
        "y.heic": b"x",
        "y.cls": b"0",
        "x.v2.jpg": jpeg(50),
        "x.cls": b"1",
        "z.jpg": b"",
        "z.cls": b"0",
    }
    members |= {f"{i}.jpg": jpeg(i) for i in range(4)} | {f"{i}.cls": str(i % 2).encode() for i in range(4)}
    assert corrupt(load(write_tar(tmp_path / "x.tar", members))) == {
        "x.tar/y": "no image that is read",
        "x.tar/x": "no image that is read",
        "x.tar/z.jpg": "empty file",
    }


def test_a_negative_label_is_none(tmp_path: Path) -> None:
    members = {"5.jpg": jpeg(5), "5.cls": b"-1", "6.jpg": jpeg(6), "6.json": b'{"label": -1}'}
    members |= {f"{i}.jpg": jpeg(i) for i in range(4)} | {f"{i}.cls": str(i % 2).encode() for i in range(4)}
    data = load(write_tar(tmp_path / "x.tar", members))
    assert data.class_names == ("0", "1")
    assert corrupt(data) == {f"x.tar/{i}.jpg": f"no label: {i}.cls or {i}.json" for i in (5, 6)}


def test_classes_above_train_and_val(tmp_path: Path) -> None:
    write_shard(tmp_path / "train" / "0.tar")
    write_shard(tmp_path / "val" / "0.tar", 1, first=50)
    config = DataConfig(path=str(tmp_path))
    before = config.canonical()
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert load(tmp_path).class_names == ("dog", "cat")
    assert config.canonical() != before
    (tmp_path / "train" / "classes.txt").write_text("cat\ndog\n")  # nearer
    assert load(tmp_path).class_names == ("cat", "dog")
