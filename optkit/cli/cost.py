"""`optkit cost`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._counting import counting_step, next_command
from optkit.cli._run import StageCommand

FORMULAS = "2·H·W·C_in·C_out·K² and C_in·C_out·K² + C_out, of every layer"
if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Count multiply-adds (MACs), parameters, activations and bytes, in total and layer by layer.

Activations are the elements that convolutions and matrix products write. Bytes are what these layers read and
write, weights, inputs and outputs once each, as the file stores them; MACs per byte say whether a machine's
arithmetic or its memory bounds a layer.

One MAC is one multiplication with its addition, two FLOPs; papers' "FLOPs" of EfficientNet are MACs.
A convolution's FLOPs are 2·H·W·C_in·C_out·K² and its parameters C_in·C_out·K² + C_out, in textbooks;
the count here is exact, and the second table leads from the one to the other.

[bold]Examples[/]

    optkit cost b0

    optkit cost b0 --size 320 --layers

    optkit cost onnx/ --json
"""


def to_json(artifact: Artifact) -> dict[str, Any]:
    """Totals, layers, unit and what was not counted."""
    return artifact.manifest.metrics | artifact.manifest.details


def show(artifact: Artifact) -> None:
    """Totals, the layers, the way from the formulas to the count, and what was not counted."""
    metrics, details = artifact.manifest.metrics, artifact.manifest.details
    title = (
        f"{details['name']} at {metrics['size']} px: {metrics['macs'] / 1e9:.4g} GMACs, "
        f"{metrics['params'] / 1e6:.4g} M parameters, {metrics['activations'] / 1e6:.4g} M activations, "
        f"{metrics['bytes'] / 1e6:.4g} MB"
    )
    show_layers = _show_all if artifact.manifest.config.get("layers") else _show_dearest
    show_layers(title, details["layers"])
    _show_formula(details)
    kinds = ", ".join(f"{count} {kind}" for kind, count in details["not_counted"].items())
    for label, text in (
        ("unit", details["unit"]),
        ("activations", details["units"]["activations"]),
        ("bytes", f"{details['units']['bytes']}: {_traffic(metrics)}"),
        ("not counted", "; ".join(filter(None, (kinds, details["never_counted"])))),
    ):
        _console.out.print(f"{label}: {text}", markup=False, highlight=False)


def _traffic(metrics: dict[str, Any]) -> str:
    """Weights and activations apart, and the arithmetic intensity."""
    parts = [f"{metrics[f'{kind}_bytes'] / 1e6:.4g} MB of {kind}s" for kind in ("weight", "activation")]
    intensity = metrics.get("macs_per_byte")
    return ", ".join(parts) + ("" if intensity is None else f"; {intensity:.3g} MACs per byte")


def _show_dearest(title: str, layers: list[dict[str, Any]]) -> None:
    dearest = sorted(layers, key=lambda layer: -layer["macs"])[:10]
    _console.table(
        title,
        [f"dearest of {len(layers)} layers", "MMACs", "parameters", "activations", "kB", "MACs/byte"],
        [
            [layer["name"], f"{layer['macs'] / 1e6:.2f}", f"{layer['params']:,}", *_moved(layer)]
            for layer in dearest
        ],
    )


def _moved(layer: dict[str, Any]) -> list[str]:
    intensity = layer["macs_per_byte"]
    return [
        f"{layer['activations']:,}",
        f"{layer['bytes'] / 1e3:,.1f}",
        "–" if intensity is None else f"{intensity:.3g}",
    ]


def _show_all(title: str, layers: list[dict[str, Any]]) -> None:
    _console.table(
        title,
        ["layer", "MMACs", "parameters", "activations", "kB", "MACs/byte", "stored in"],
        [
            [
                layer["name"],
                f"{layer['macs'] / 1e6:,.2f}",
                f"{layer['params']:,}",
                *_moved(layer),
                layer["precision"],
            ]
            for layer in layers
        ],
    )
    _console.table(
        "the formulas, layer by layer",
        ["layer", "MFLOPs", "by formula", "parameters", "by formula", "why they differ"],
        [
            [
                layer["name"],
                f"{2 * layer['macs'] / 1e6:,.2f}",
                "–" if layer["formula_flops"] is None else f"{layer['formula_flops'] / 1e6:,.2f}",
                f"{layer['params']:,}",
                "–" if layer["formula_params"] is None else f"{layer['formula_params']:,}",
                layer["why"],
            ]
            for layer in layers
        ],
    )


def _show_formula(details: dict[str, Any]) -> None:
    first, *reasons, last = details["formula"]
    rows = [
        [FORMULAS, f"{first['flops'] / 1e9:,.4f}", f"{first['params'] / 1e6:,.4f}"],
        *(
            [row["reason"], *(_signed(row[name], unit) for name, unit in (("flops", 1e9), ("params", 1e6)))]
            for row in reasons
            if row["flops"] or row["params"]
        ),
        ["exact count", f"{last['flops'] / 1e9:,.4f}", f"{last['params'] / 1e6:,.4f}"],
    ]
    _console.table("from the textbook's formulas to the exact count", ["", "GFLOPs", "M parameters"], rows)
    _console.out.print(
        f"if every K×K convolution were depthwise-separable, 2·H·W·C_in·(K² + C_out): "
        f"{details['separable_flops'] / 1e9:,.4f} GFLOPs",
        markup=False,
        highlight=False,
    )


def _signed(value: int, unit: float) -> str:
    return f"{value / unit:+,.4f}" if value else ""


command = StageCommand(
    "cost",
    HELP,
    show,
    to_json,
    next_command,
    positional=("model",),
    hidden=("arch",),
    expand=partial(counting_step, "cost"),
)
