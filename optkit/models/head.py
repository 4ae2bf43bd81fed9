"""New heads: what follows the pooling, up to the classes."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from optkit.core.types import HeadSpec


def last_linear(head: nn.Linear | nn.Sequential) -> nn.Linear:
    """The layer of `head` that gives the logits."""
    return head[-1] if isinstance(head, nn.Sequential) else head


def make_head(in_features: int, num_classes: int, head: HeadSpec) -> nn.Sequential:
    """The layers of `head` after the pooling: (n, in_features) → (n, num_classes) logits.

    `flatten` takes the feature map (n, …) itself. Dropout acts on what the last layer sees, and between the
    hidden ones.
    """
    layers: list[nn.Module] = [nn.Flatten()] if head.pooling == "flatten" else []
    widths = (in_features, *head.hidden)
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(head.dropout)]
    if not head.hidden and head.dropout:
        layers.append(nn.Dropout(head.dropout))
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))


def init_head(head: nn.Module, how: str) -> None:
    """Draw the weights of `head` anew; biases become 0.

    `how` is for the last layer: `zero`, `xavier` (uniform, standard deviation √(2 / (inputs + outputs)), Glorot and
    Bengio 2010) or `he` (normal, √(2 / inputs), arXiv 1502.01852). Hidden layers get `he` unless it is `xavier`.
    """
    layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    for layer in layers:
        if how == "zero" and layer is layers[-1]:
            nn.init.zeros_(layer.weight)
        elif how == "xavier":
            nn.init.xavier_uniform_(layer.weight)
        else:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
