"""`optkit distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optkit.cli._run import StageCommand, Steps, model_to_json, show_model

HELP = """Distil a large teacher into a small student.

Teacher and student are architectures or trained artifacts. A teacher that is only named is fine-tuned first,
with the defaults of `optkit finetune`, and kept for the next time.

[bold]Examples[/]

    optkit distill --teacher b7 --student b0

    optkit distill --teacher ft-b4/ --student lite0 --data photos/ --epochs 10 --out small/
"""


def expand(options: dict[str, Any], load: dict[str, Any]) -> Steps:
    """The teacher's fine-tuning, when it is named by architecture, and the distillation."""
    steps: Steps = {}
    options = dict(options)
    if not _is_model(options["teacher"]):
        shared: dict[str, Any] = {key: options[key] for key in ("data", "seed") if key in options}
        steps["teacher"] = {"stage": "finetune", "arch": options["teacher"], **shared}
        options["teacher"] = "teacher"
    student = options.get("student")
    if student is not None and not _is_model(student):
        options["arch"] = options.pop("student")
    steps["distill"] = {"stage": "distill", **options}
    return steps


def _is_model(name: str) -> bool:
    """Whether `name` is a path rather than an architecture."""
    return Path(name).exists() or "/" in name or Path(name).suffix in (".safetensors", ".pth", ".pt")


command = StageCommand(
    "distill",
    HELP,
    show_model,
    model_to_json,
    lambda done: f"optkit prune {done.where}{done.data}",
    hidden=("arch",),
    expand=expand,
)
