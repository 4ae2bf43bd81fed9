"""Keys follow content, not names and order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from optkit.core import fingerprint
from optkit.core.errors import InputError


def test_values_do_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint.of_value({"a": 1, "b": 2}) == fingerprint.of_value({"b": 2, "a": 1})
    assert fingerprint.of_value({"a": 1}) != fingerprint.of_value({"a": 2})


def test_trees_follow_their_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"1")
    first = fingerprint.of_path(tmp_path)
    assert fingerprint.of_path(tmp_path) == first
    (tmp_path / "a" / "x.jpg").write_bytes(b"2")
    os.utime(tmp_path / "a" / "x.jpg", (1, 1))
    second = fingerprint.of_path(tmp_path)
    (tmp_path / "a" / "y.jpg").write_bytes(b"")
    assert len({first, second, fingerprint.of_path(tmp_path)}) == 3


def test_hidden_files_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"1")
    before = fingerprint.of_tree(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "y").write_bytes(b"1")
    (tmp_path / ".DS_Store").write_bytes(b"1")
    assert fingerprint.of_tree(tmp_path) == before


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file or folder"):
        fingerprint.of_path(tmp_path / "nope")


def test_code_of_stages_differs() -> None:
    assert fingerprint.of_code("prune") != fingerprint.of_code("distill")


def test_file_names_need_not_be_utf8() -> None:
    odd, other = (os.fsdecode(name) for name in (b"caf\xe9", b"caf\xe8"))
    assert fingerprint.of_value(odd) != fingerprint.of_value(other)
    assert fingerprint.of_value("\ud800") == fingerprint.of_value("\ud800")
