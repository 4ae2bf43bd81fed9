"""The benchmark trains in every way that it names, and reckons ratios against the quicker reference."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.data.pictures import jpeg, photo

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = ["--arch", "test_efficientnet", "--weights", "scratch", "--size", "32", "--batch", "2"]


@pytest.fixture
def finetune(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import finetune as script

    yield script
    for name in ("finetune", "loading"):
        sys.modules.pop(name)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for seed in range(4):
            (tmp_path / name / f"{seed}.jpg").write_bytes(jpeg(photo(60, 48, seed)))
    return tmp_path


def test_it_compares_both_loops_with_all_layers_and_with_a_frozen_body(
    finetune: ModuleType, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, measured = photos / "result.json", []

    def here(args: object, number: int) -> object:
        """A process takes seconds to start; one is enough."""
        variant = finetune.VARIANTS[number]
        measured.append(variant)
        if variant.name == "optkit" and variant.learns == "head":
            return in_own_process(args, number)
        args.classes = 2
        return finetune.measure(args, variant)

    in_own_process = finetune.in_own_process
    monkeypatch.setattr(finetune, "in_own_process", here)
    command = ["finetune.py", "--data", str(photos), *SMALL, "--images", "8", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out)])
    finetune.main()
    assert measured == finetune.VARIANTS
    rows = json.loads(out.read_text())["rows"]
    for learns in ("all", "head"):
        own = {row["name"]: row for row in rows if row["learns"] == learns}
        quicker = max(own[f"timm, {workers} workers"]["images_per_second"][0] for workers in (0, 2))
        for row in own.values():
            assert row["ratio"] == [pytest.approx(row["images_per_second"][0] / quicker)] * 3
        assert (own["optkit"]["preparation_seconds"] is not None) == (learns == "head")


def test_a_ratio_is_the_median_over_rounds_against_the_reference_of_the_same_round(
    finetune: ModuleType,
) -> None:
    speeds = {"timm, 0 workers": [10, 20, 10], "timm, 2 workers": [5, 5, 50], "optkit": [40, 40, 30]}
    found = [
        [finetune.Figure(value) for value in speeds.get(variant.name, [10, 20, 10])]
        for variant in finetune.VARIANTS
    ]
    rows = {row.name: row for row in finetune.rows_of(found) if row.learns == "all"}
    assert rows["optkit"].ratio == (3, 2, 4)
    assert rows["timm, 0 workers"].ratio == (1, 1, 1)


def test_only_the_head_of_a_frozen_reference_learns(finetune: ModuleType) -> None:
    args = finetune.argparse.Namespace(arch="test_efficientnet", weights="scratch", size=32, classes=2)
    model = finetune.timm_network(args, "head")
    learning = {id(weight) for weight in model.parameters() if weight.requires_grad}
    assert learning == {id(weight) for weight in model.get_classifier().parameters()}


def test_it_refuses_an_epoch_of_warm_up_alone(
    finetune: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["finetune.py", "--data", "photos", *SMALL, "--images", "4"])
    with pytest.raises(SystemExit) as stopped:
        finetune.main()
    assert stopped.value.code == 2
    assert "--images must be a multiple of --batch (2), and more than 2 of them" in capsys.readouterr().err
