"""Whether TensorRT-RTX takes a file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from optkit.core.errors import OptkitError
from optkit.core.types import Artifact
from optkit.graph.lint.base import Severity, lint_file
from optkit.runtimes.tensorrt.build import build_engine

COMPUTE_CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")
MAX_BATCH = 8


def lint_findings(artifact: Artifact, target: str) -> list[str]:
    """Errors and warnings of the linter, one line each."""
    found = lint_file(artifact.file, target).findings
    return [f"{one.rule} at {one.node}: {one.reason}" for one in found if one.severity is not Severity.NOTE]


def builds(artifact: Artifact) -> dict[str, str]:
    """By compute capability why no engine could be built; empty when one was."""
    found = {}
    for capability in COMPUTE_CAPABILITIES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                size = artifact.spec.preprocess.size
                build_engine(artifact.file, Path(folder) / "engine.plan", capability, MAX_BATCH, size)
                found[capability] = ""
            except OptkitError as error:
                found[capability] = f"{error.message} {error.why}"
    return found
