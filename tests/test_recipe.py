"""Recipes: reading, overriding, refusing."""

from __future__ import annotations

from pathlib import Path

import pytest

from optkit.core.errors import InputError, UsageError
from optkit.recipe import recipe_from_value, recipe_from_yaml, recipe_to_yaml

TEXT = """
data: digits
steps:
  student: {stage: finetune, arch: lite0, train: {epochs: 1}}
  prune: {model: student, ratio: 0.3}
budget: {max_drop: 0.5}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT)
    return file


def test_names_default_to_file_and_step(path: Path) -> None:
    recipe = recipe_from_yaml(path, [])
    assert recipe.name == "mine"
    assert recipe.steps["prune"].stage == "prune"
    assert recipe.steps["student"].options == {"arch": "lite0", "train": {"epochs": 1}}


def test_overrides_reach_into_steps(path: Path) -> None:
    recipe = recipe_from_yaml(
        path, ["prune.ratio=0.4", "student.train.epochs=7", "seed=3", "data.val_fraction=0.5"]
    )
    assert recipe.steps["prune"].options["ratio"] == 0.4
    assert recipe.steps["student"].options["train"] == {"epochs": 7}
    assert recipe.seed == 3
    assert recipe.data == {"path": "digits", "val_fraction": 0.5}


def test_overrides_reach_the_budget(path: Path) -> None:
    recipe = recipe_from_yaml(path, ["budget.max_drop=1", "budget.confidence=0.9"])
    assert recipe.budget == {"max_drop": 1, "confidence": 0.9}


def test_the_dump_reads_back(path: Path, tmp_path: Path) -> None:
    recipe = recipe_from_yaml(path, ["seed=5"])
    again = tmp_path / "again.yaml"
    again.write_text(recipe_to_yaml(recipe))
    assert recipe_from_yaml(again, []) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "not a YAML file"),
        ("- a\n- b", "not a recipe"),
        ("stepz: {}", "Unknown key 'stepz'"),
        ("steps: {}", "steps"),
        ("steps: {a: 3}", "not a mapping"),
        ("name: ../evil\nsteps: {a: {}}", "name"),
        ("steps: {'a/../b': {stage: load}}", "step name"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises((UsageError, InputError), match=message):
        recipe_from_yaml(file, [])


def test_a_misspelt_key_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        recipe_from_value({"name": "a", "stepz": {}}, "it")
    assert "steps" in caught.value.hint


def test_a_stage_that_one_step_has_names_the_step(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("steps: {ft: {stage: finetune}, small: {stage: prune, model: ft}}")
    assert recipe_from_yaml(file, ["prune.ratio=0.4"]).steps["small"].options["ratio"] == 0.4


@pytest.mark.parametrize(
    "override", ["prune.ratio", "prunee.ratio=1", "nothing=1", "prune.ratio=[", "prune=1"]
)
def test_a_wrong_override_is_refused(path: Path, override: str) -> None:
    with pytest.raises(UsageError):
        recipe_from_yaml(path, [override])


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe"):
        recipe_from_yaml(tmp_path / "nope.yaml", [])
