"""`optkit estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import Done, StageCommand, Steps

if TYPE_CHECKING:
    from optkit.core.types import Artifact

SUFFIXES = (".onnx", ".safetensors", ".pth", ".pt", ".plan", ".engine")

HELP = """Estimate the throughput of a model on GPUs that are not here.

The operations of the network are counted, and their times added up; what an operation costs was fitted to timm's
published throughputs in PyTorch (FP16). Beside every figure stands the error that such estimates had on families
of networks that were left out of the fit. Nothing here is measured: `optkit bench` measures.

[bold]Examples[/]

    optkit estimate b0

    optkit estimate runs/finetune --gpu rtx4090,rtx5090 --no-compiled

    optkit estimate model.onnx --setup rtx3090-nhwc-eager-2.4 --json
"""


def to_json(artifact: Artifact) -> dict[str, Any]:
    """The estimates, what they rest on, and the counts."""
    return artifact.manifest.metrics | artifact.manifest.details


def show(artifact: Artifact) -> None:
    """One line for each GPU and mode, and what the figures rest on."""
    metrics, details = artifact.manifest.metrics, artifact.manifest.details
    rows = details["estimates"]
    _console.table(
        f"estimate, not measured: {details['name']} at {metrics['size']} px, {metrics['macs'] / 1e9:.4g} GMACs",
        ["GPU, PyTorch", "images/s (estimate)", "90 % range", "ms (estimate)", "median error", "mean error"],
        [
            [
                f"{row['gpu']} {row['torch']} {'compiled' if row['compiled'] else 'eager'} {row['layout']}",
                f"≈ {_figures(row['images_per_s'])}",
                " – ".join(map(_figures, row["range_90"])) + (" (extrapolated)" if row["beyond"] else ""),
                f"≈ {row['ms_per_image']:.3g}",
                f"{row['median_error']:.1%}",
                f"{row['mape']:.1%}",
            ]
            for row in rows
        ],
    )
    fewest, most = (choose(row["n_models"] for row in rows) for choose in (min, max))
    batches = " or ".join(f"{batch:,}" for batch in sorted({row["batch"] for row in rows}))
    _console.out.print(
        f"Every figure is an estimate, at a batch of {batches}: {details['basis']} ({fewest:,} to {most:,} networks).",
        markup=False,
        highlight=False,
    )


def _figures(value: float) -> str:
    """Three significant digits."""
    return f"{float(f'{value:.3g}'):,.10g}"


def expand(options: dict[str, Any], load: dict[str, Any]) -> Steps:
    """What is a path is a model, anything else an architecture."""
    from optkit.core.types import MANIFEST  # --help needs no types

    options = dict(options)
    path = Path(options.get("model", ""))
    if "model" in options and path.suffix not in SUFFIXES and not path.exists() and "arch" not in options:
        options["arch"] = options.pop("model")
    elif "size" in options and path.is_file() and not (path.parent / MANIFEST).is_file():
        load["size"] = options["size"]
    return {"estimate": {"stage": "estimate", **options}}


def next_command(done: Done) -> str:
    """Measure the model here, or train the architecture."""
    name = done.artifact.manifest.details["name"]
    return f"optkit bench {done.models}" if done.models else f"optkit finetune --arch {name}"


command = StageCommand("estimate", HELP, show, to_json, next_command, positional=("model",), expand=expand)
