"""Which parts of a network learn."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from optkit.core.errors import UsageError, closest


def unfreeze(module: nn.Module, what: str | int, freeze_bn: bool = False) -> None:
    """Let `what` learn and freeze the rest: 'all', 'head', the last N blocks, or 'from:<module name>'.

    The head always learns. Blocks are those that timm's `group_matcher` names; everything after the last block
    counts to it. `from:` means that module and everything after it in the order of definition.
    """
    head = set(module.get_classifier().parameters())
    learning = _names_from(module, what) if str(what).startswith("from:") else _names_of(module, what, head)
    for name, parameter in module.named_parameters():
        parameter.requires_grad = parameter in head or name in learning
    if freeze_bn:
        for layer in batch_norms(module):
            layer.requires_grad_(False)


def _names_of(module: nn.Module, what: str | int, head: set[nn.Parameter]) -> set[str]:
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
    return {name for names in body[len(body) - int(last) :] for name in names}


def _names_from(module: nn.Module, what: str | int) -> set[str]:
    wanted = str(what).removeprefix("from:")
    names = [name for name, _ in module.named_parameters()]
    first = next((i for i, name in enumerate(names) if name.startswith(f"{wanted}.")), None)
    if first is None:
        known = [  # not every layer of every block
            name
            for name, layer in module.named_modules()
            if name and name.count(".") < 2 and any(True for _ in layer.parameters())
        ]
        raise UsageError(
            f"unfreeze: this network has no module {wanted!r} with weights.", hint=closest(wanted, known)
        )
    return set(names[first:])


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Every batch normalisation of `module`."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def set_train_mode(module: nn.Module) -> None:
    """Train mode; layers whose own weights are frozen keep to eval mode, so that statistics stay as they are."""
    module.train()
    for layer in module.modules():
        own = list(layer.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            layer.eval()
