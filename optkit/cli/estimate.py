"""`optkit estimate`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._counting import counting_step, next_command
from optkit.cli._run import StageCommand

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Estimate the throughput of a model on GPUs that are not here.

The operations of the network are counted, and their times added up; what an operation costs was fitted to timm's
published throughputs in PyTorch (FP16). Beside every figure stands the error of the images per second that such
estimates had on families of networks that were left out of the fit. Nothing here is measured: `optkit bench` measures.

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
        [
            "GPU, PyTorch",
            "images/s\n(estimate)",
            "90 % range",
            "ms\n(estimate)",
            "error of\nimages/s:\nmedian",
            "mean",
        ],
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
    networks = [row["n_models"] for row in rows]
    batches = " or ".join(f"{batch:,}" for batch in sorted({row["batch"] for row in rows}))
    _console.out.print(
        f"Every figure is an estimate, at a batch of {batches}: {details['basis']} "
        f"({min(networks):,} to {max(networks):,} networks).",
        markup=False,
        highlight=False,
    )


def _figures(value: float) -> str:
    """Three significant digits."""
    return f"{float(f'{value:.3g}'):,.10g}"


command = StageCommand(
    "estimate",
    HELP,
    show,
    to_json,
    next_command,
    positional=("model",),
    expand=partial(counting_step, "estimate"),
)
