"""`optkit estimate`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import optkit
from tests.stages.support import TINY, run_steps


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_table_says_estimate_and_its_error() -> None:
    done = optkit("estimate", "lite0", "--gpu", "rtx4090,rtx3090")
    assert done.code == 0, done.err
    assert "estimate, not measured: lite0" in done.out
    rows = [line for line in done.out.splitlines() if "rtx" in line]
    assert [row.split()[0] for row in rows] == ["rtx4090", "rtx4090", "rtx3090"]
    assert all("≈" in row and "–" in row and row.count("%") == 2 for row in rows)
    assert "images/s:" in done.out  # whose error it is
    assert "errors are those of the images per second, on families of networks that were left out" in (
        " ".join(done.out.split())
    )
    assert "optkit finetune --arch lite0" in done.err


def test_json_compiled_and_arch() -> None:
    done = optkit(
        "estimate", "--arch", "lite0", "--gpu", "rtx5090", "--no-compiled", "--size", "64", "--json"
    )
    (row,) = done.json["estimates"]
    assert (row["gpu"], row["compiled"], row["word"]) == ("rtx5090", False, "estimate")
    assert done.json["size"] == 64


def test_a_checkpoint(tmp_path: Path) -> None:
    steps = {"m": {"stage": "finetune", **TINY, "train": {"epochs": 1}}}
    artifact = run_steps(tmp_path, steps)["m"]
    done = optkit("estimate", str(artifact.path), "--gpu", "rtx4090", "--compiled", "--json")
    assert done.code == 0, done.err
    assert done.json["name"] == artifact.path.name
    assert "optkit bench" in done.err


def test_a_misspelt_gpu_says_which_is_near() -> None:
    done = optkit("estimate", "lite0", "--gpu", "rtx4080")
    assert done.code == 2
    assert "Did you mean 'rtx4090'" in done.err
