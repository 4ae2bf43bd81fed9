"""`optkit scale`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import StageCommand

if TYPE_CHECKING:
    from optkit.core.types import Artifact

SHOWN = 10  # candidates and trials
HELP = """Scale EfficientNet's depth, width and resolution together: α^φ, β^φ and γ^φ.

The result is the name of an architecture, which every other command accepts:
b0-d1.20-w1.10-r256 is b0 with 1.2 times the layers, 1.1 times the channels,
and images of 256 pixels. Each unit of φ should double the MACs, as α·β²·γ² ≈ 2;
what it does is counted exactly.

Step 1, --search, chooses α, β and γ anew. Ranked by cost, candidates are in the
order of how near their MACs are to twice the base's: cost cannot tell which is
the most accurate. --rank-by training trains each for a moment.

Step 2 is the largest φ within --max-macs or --max-latency-ms.

[bold]Examples[/]

    optkit scale --phi 1

    optkit scale --max-macs 2.5

    optkit scale --base lite0 --max-latency-ms 30

    optkit scale --search --rank-by training --data photos/ --size 96
"""


def to_json(artifact: Artifact) -> dict[str, Any]:
    """Base, chosen network, candidates of the search, and what was tried for the budget."""
    return {**artifact.manifest.details, "warnings": list(artifact.manifest.warnings)}


def show(artifact: Artifact) -> None:
    """The search, the trials and the chosen network beside the base."""
    details = artifact.manifest.details
    if details["candidates"]:
        _show_candidates(details)
    if details["trials"]:
        _show_trials(details["trials"], details["chosen"]["arch"])
    _show_chosen(details["base"], details["chosen"])


def _show_candidates(details: dict[str, Any]) -> None:
    by_training = details["rank_by"] == "training"
    rows = []
    for row in details["candidates"][:SHOWN]:
        cells = [row["arch"], *(f"{row[name]:.2f}" for name in ("alpha", "beta", "gamma", "growth"))]
        cells += [f"{row['macs'] / 1e9:.3f}", f"×{row['macs_ratio']:.2f}"]
        rows.append([*cells, _accuracy(row)] if by_training else cells)
    order = "accuracy after a short training" if by_training else "how near the MACs are to twice the base's"
    columns = ["candidate", "α", "β", "γ", "α·β²·γ²", "GMACs", "MACs"]
    total = len(details["candidates"])
    shown = f", {SHOWN} of {total}" if total > SHOWN else ""
    _console.table(
        f"step 1: candidates by {order}{shown}", [*columns, "top-1"] if by_training else columns, rows
    )


def _accuracy(row: dict[str, Any]) -> str:
    if "top1" not in row:
        return "not trained"
    low, high = row["top1_interval"]
    return f"{row['top1']:.3f} ({low:.3f}–{high:.3f})"


def _show_trials(trials: list[dict[str, Any]], chosen: str) -> None:
    is_timed = any("latency_ms" in row for row in trials)
    rows = []
    for row in trials:
        name = f"{row['arch']} ←" if row["arch"] == chosen else row["arch"]
        cells = [name, f"{row['phi']:g}", f"{row['macs'] / 1e9:.3f}"]
        rows.append(
            [*cells, f"{row['latency_ms']:.2f}" if "latency_ms" in row else "–"] if is_timed else cells
        )
    columns = ["tried", "φ", "GMACs"]
    _console.table(
        "step 2: the largest φ within the budget", [*columns, "median ms"] if is_timed else columns, rows
    )


def _show_chosen(base: dict[str, Any], chosen: dict[str, Any]) -> None:
    rows = [
        ["depth", "1", f"{chosen['depth']:.2f}", f"α^φ = {chosen['alpha']:g}^{chosen['phi']:g}"],
        ["width", "1", f"{chosen['width']:.2f}", f"β^φ = {chosen['beta']:g}^{chosen['phi']:g}"],
        ["size, px", f"{base['size']}", f"{chosen['size']}", f"γ^φ = {chosen['gamma']:g}^{chosen['phi']:g}"],
        _cost_row("GMACs", base["macs"] / 1e9, chosen["macs"] / 1e9),
        _cost_row("M parameters", base["params"] / 1e6, chosen["params"] / 1e6),
    ]
    _console.table(f"φ = {chosen['phi']:g}", ["", base["arch"], chosen["arch"], "growth"], rows)
    _console.out.print(
        f"MACs: ×{chosen['macs_ratio']:.3f} counted; predicted ×{chosen['predicted_ratio']:.3f} (2^φ), "
        f"×{chosen['growth'] ** chosen['phi']:.3f} (α·β²·γ²)^φ",
        markup=False,
        highlight=False,
    )


def _cost_row(name: str, before: float, after: float) -> list[str]:
    return [name, f"{before:.4g}", f"{after:.4g}", f"×{after / before:.3f}"]


command = StageCommand(
    "scale",
    HELP,
    show,
    to_json,
    lambda done: f"optkit finetune --arch {done.artifact.manifest.details['chosen']['arch']}{done.data}",
)
