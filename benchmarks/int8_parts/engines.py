"""What optkit's linter says of a file, and whether TensorRT-RTX builds it."""

from __future__ import annotations

import json
from pathlib import Path

from int8_parts.files import optkit
from int8_parts.processes import Failed

COMPUTE_CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")
NOTE = "note"


def lint_findings(model: Path, target: str, folder: Path) -> list[str]:
    """Errors and warnings of `optkit lint`, one line each."""
    run = optkit(["lint", str(model), "--for", target, "--json"], folder, accepted=(0, 1))
    found = json.loads(run.stdout)["findings"]
    return [f"{one['rule']} at {one['node']}: {one['reason']}" for one in found if one["severity"] != NOTE]


def builds(model: Path, folder: Path) -> dict[str, str]:
    """By compute capability why `optkit export` could not build an engine; empty when it could."""
    found = {}
    for capability in COMPUTE_CAPABILITIES:
        words = ["export", str(model), "--format", "tensorrt", "--target", capability, "--out", "engine"]
        try:
            optkit(words, folder / capability)
            found[capability] = ""
        except Failed as error:
            found[capability] = str(error)
    return found
