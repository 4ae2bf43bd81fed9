"""Which parts of a network learn."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn

from optkit.core.errors import UsageError


def unfreeze(module: nn.Module, what: str | int) -> None:
    """Let `what` learn and freeze the rest: 'all', 'head', or the last N blocks with the head.

    Blocks are those that timm's `group_matcher` names; everything after the last block counts to it.
    """
    head = set(module.get_classifier().parameters())
    groups = group_parameters(module, module.group_matcher(coarse=True))
    body = [
        names
        for _, names in sorted(groups.items())
        if any(module.get_parameter(name) not in head for name in names)
    ]
    if isinstance(what, int) and what > len(body):
        raise UsageError(
            f"unfreeze: {what} is more than the {len(body)} blocks of this network.",
            hint="Use 'all' to train everything.",
        )
    last = {"all": len(body), "head": 0}.get(what, what) if isinstance(what, str) else what
    learning = {name for names in body[len(body) - last :] for name in names}
    for name, parameter in module.named_parameters():
        parameter.requires_grad = parameter in head or name in learning


def set_train_mode(module: nn.Module) -> None:
    """Train mode for what learns; batch normalisation of frozen parts keeps its statistics."""
    module.train()
    for layer in module.modules():
        own = list(layer.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            layer.eval()
