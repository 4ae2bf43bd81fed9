"""The benchmark runs and says what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import loading
from tests.data.pictures import jpeg, photo


def test_it_compares_both_pipelines_on_photos_of_three_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for seed in range(2):
            (tmp_path / name / f"{seed}.jpg").write_bytes(jpeg(photo(60, 48, seed)))
    out = tmp_path / "result.json"
    options = ["--size", "32", "--images", "4", "--rounds", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["loading.py", "--data", str(tmp_path), *options])
    loading.main()
    rows = json.loads(out.read_text())["rows"]
    assert [(row["pipeline"], row["median_short_side"]) for row in rows] == [
        (pipeline, side) for side in (48, 96, 144) for pipeline in ("evaluation", "training")
    ]
    assert all(row["difference"] < 1 for row in rows[::2])
    assert all(row["interval"][0] <= row["ratio"] <= row["interval"][1] for row in rows)
