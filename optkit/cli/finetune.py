"""`optkit finetune`."""

from __future__ import annotations

from optkit.cli._run import StageCommand, model_to_json, show_model

HELP = """Fine-tune a classifier: a new head on cached features first, then the network.

[bold]Examples[/]

    optkit finetune

    optkit finetune --data photos/ --arch b0 --out ft/

    optkit finetune --data photos/ --arch lite0 --weights package --unfreeze 2 --epochs 3
"""

command = StageCommand(
    "finetune",
    HELP,
    show_model,
    model_to_json,
    lambda done: f"optkit export {done.where}",
)
