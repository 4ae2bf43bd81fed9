"""`optkit prune`."""

from __future__ import annotations

from optkit.cli._run import StageCommand, model_to_json, show_model

HELP = """Prune channels until a share of the multiply-adds is gone, and train to recover.

Widths stay multiples of 16, because other widths run slower than the dense network.

[bold]Examples[/]

    optkit prune ft/ --data photos/ --ratio 0.4

    optkit prune ft/ --criterion group_l2 --scope all --epochs 10 --out pruned/
"""

command = StageCommand(
    "prune",
    HELP,
    show_model,
    model_to_json,
    lambda done: f"optkit export {done.where}",
    positional=("model",),
)
