"""Artifacts appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from optkit.core.errors import InputError
from optkit.core.store import Store, copy_artifact, damage, read_artifact, write_atomically
from optkit.core.types import MANIFEST, Artifact, Format, Manifest


def commit(store: Store, key: str = "k1", content: bytes = b"weights") -> Artifact:
    with store.workdir(key) as folder:
        (folder / "model.onnx").write_bytes(content)
        return store.commit(folder, Manifest(stage="export", key=key, format=Format.ONNX))


def test_commit_and_find(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("k1") is None
    made = commit(store)
    found = store.find("k1")
    assert found is not None
    assert found.manifest == made.manifest
    assert found.manifest.files["model.onnx"].size_bytes == 7
    assert found.manifest.packages["optkit"]
    assert found.manifest.machine["python"]


def test_nothing_is_visible_before_the_commit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.workdir("k1") as folder:
        (folder / "model.onnx").write_bytes(b"half")
        assert store.find("k1") is None
        assert not store.path("k1").exists()
    assert not folder.exists()
    assert store.find("k1") is None


def test_a_failing_step_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail() -> None:
        with store.workdir("k1") as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_changed_file_is_a_miss(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = commit(store)
    assert damage(made) is None
    made.file.write_bytes(b"weightz")
    assert damage(made) == "model.onnx"
    assert store.find("k1") is None


def test_commit_replaces_a_damaged_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store).file.write_bytes(b"broken!")
    commit(store, content=b"new")
    found = store.find("k1")
    assert found is not None
    assert found.file.read_bytes() == b"new"


def test_garbage_of_dead_processes_is_collected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    work = tmp_path / "work"
    dead, alive = work / "k.999999999.abc", work / f"k.{os.getpid()}.abc"
    dead.mkdir(parents=True)
    alive.mkdir()
    store.collect_garbage()
    assert not dead.exists()
    assert alive.exists()


def test_read_artifact_names_the_problem(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an artifact"):
        read_artifact(tmp_path)
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        read_artifact(tmp_path)


@pytest.mark.parametrize("name", ["missing.onnx", "../outside.onnx", "/etc/passwd"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    made = commit(Store(tmp_path))
    (tmp_path / "outside.onnx").write_bytes(b"")
    manifest = json.loads((made.path / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": "0", "size_bytes": 0}
    (made.path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="lacks its file"):
        read_artifact(made.path)


def test_copy_replaces_artifacts_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    target = tmp_path / "out"
    copy_artifact(commit(store), target)
    copy_artifact(commit(store, "k2", b"other"), target)
    assert read_artifact(target).file.read_bytes() == b"other"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not an optkit artifact"):
        copy_artifact(commit(store), mine)
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out", "store"]


def test_a_result_never_replaces_a_file_or_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = commit(Store(tmp_path / "store"))
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for target in (Path("file"), Path("."), tmp_path):
        with pytest.raises(InputError, match="cannot take the result"):
            copy_artifact(artifact, target)
    assert (tmp_path / "file").read_text() == "mine"


def test_foreign_names_in_the_work_folder_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "work" / "strange").mkdir(parents=True)
    Store(tmp_path).collect_garbage()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_model_needs_its_file(tmp_path: Path) -> None:
    made = commit(Store(tmp_path))
    manifest = json.loads((made.path / MANIFEST).read_text())
    manifest["files"] = {}
    (made.path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="no model file"):
        read_artifact(made.path)


def test_write_atomically_replaces(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.txt", "one")
    write_atomically(tmp_path / "a" / "b.txt", "two")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]
    assert (tmp_path / "a" / "b.txt").read_text() == "two"
