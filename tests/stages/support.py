"""A network so small that it learns drawn images in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optkit import pipeline
from optkit.core.progress import SilentReporter
from optkit.core.store import Store
from optkit.core.types import Artifact
from optkit.recipe import recipe_from_value

TINY = {"arch": "test_efficientnet", "weights": "scratch", "size": 32}


def run_steps(folder: Path, steps: dict[str, Any]) -> dict[str, Artifact]:
    """Run `steps` on the synthetic data set, in a store of their own."""
    recipe = recipe_from_value({"name": "test", "data": "synthetic", "steps": steps}, "test")
    return pipeline.run(pipeline.plan(recipe, Store(folder / "store")), SilentReporter())
