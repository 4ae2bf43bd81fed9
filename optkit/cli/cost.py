"""`optkit cost`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import StageCommand, Steps

SUFFIXES = (".onnx", ".safetensors", ".pth", ".pt", ".plan", ".engine")

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Count multiply-adds (MACs) and parameters, in total and layer by layer.

One MAC is one multiplication with its addition: papers' "FLOPs" of EfficientNet are MACs.

[bold]Examples[/]

    optkit cost b0

    optkit cost onnx/ --json
"""


def to_json(artifact: Artifact) -> dict[str, Any]:
    """Totals, layers, unit and what was not counted."""
    return artifact.manifest.metrics | artifact.manifest.details


def show(artifact: Artifact) -> None:
    """Totals, and the ten layers that cost most."""
    metrics, details = artifact.manifest.metrics, artifact.manifest.details
    layers = sorted(details["layers"], key=lambda layer: -layer["macs"])[:10]
    _console.table(
        f"{metrics['macs'] / 1e9:.4g} GMACs, {metrics['params'] / 1e6:.4g} M parameters",
        ["dearest layers", "MMACs", "parameters"],
        [[layer["name"], f"{layer['macs'] / 1e6:.2f}", f"{layer['params']:,}"] for layer in layers],
    )
    for name in ("unit", "not_counted"):
        if details.get(name):
            text = details[name]
            if isinstance(text, dict):
                text = ", ".join(f"{count} {kind}" for kind, count in text.items())
            _console.out.print(f"{name.replace('_', ' ')}: {text}", markup=False, highlight=False)


def expand(options: dict[str, Any], load: dict[str, Any]) -> Steps:
    """What is a path is a model, anything else an architecture."""
    options = dict(options)
    if Path(options["model"]).suffix not in SUFFIXES and not Path(options["model"]).exists():
        options["arch"] = options.pop("model")
    elif "size" in options and Path(options["model"]).is_file():
        load["size"] = options["size"]
    return {"cost": {"stage": "cost", **options}}


command = StageCommand(
    "cost",
    HELP,
    show,
    to_json,
    lambda done: f"optkit bench {done.models}" if done.models else "optkit finetune",
    positional=("model",),
    hidden=("arch",),
    expand=expand,
)
