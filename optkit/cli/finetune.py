"""`optkit finetune`."""

from __future__ import annotations

from optkit.cli._run import model_to_json, show_model, stage_command

HELP = """Fine-tune a classifier: a new head on cached features first, then the network.

**Examples**

    optkit finetune

    optkit finetune --data photos/ --arch b0 --out ft/

    optkit finetune --data photos/ --arch lite0 --weights package --unfreeze 2 --epochs 3
"""

command = stage_command(
    "finetune",
    HELP,
    show_model,
    model_to_json,
    lambda artifact, where: f"optkit export {where}",
)
