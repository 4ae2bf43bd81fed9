"""Which channels to remove: cheapest loss of importance per multiply-add saved, in blocks of full width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import nn

from optkit.core.errors import InputError, UsageError
from optkit.core.types import ModelSpec
from optkit.models.build import rebuild
from optkit.models.checkpoint import module_from_state
from optkit.models.head import last_linear
from optkit.models.widths import read_widths
from optkit.stages.prune.config import Config


@dataclass
class ChannelGroup:
    """Channels that can only go together (DepGraph, arXiv 2301.12900): one row per channel of `root`.

    `importance` (channels,) is the criterion's score; `kept` counts the channels that stay.
    """

    root: nn.Module
    importance: torch.Tensor
    inputs: set[str]
    outputs: set[str]
    kept: int

    @property
    def width(self) -> int:
        return len(self.importance)

    @property
    def share(self) -> float:
        return self.kept / self.width


def find_groups(
    module: nn.Module, example: torch.Tensor, importance: tp.importance.Importance, scope: str
) -> tuple[tp.DependencyGraph, list[ChannelGroup]]:
    """Every group of channels that may be pruned: not the classes, and by scope not the residual sums."""
    graph = tp.DependencyGraph().build_dependency(module, example)
    names = {layer: name for name, layer in module.named_modules()}
    found = []
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        inputs, outputs, is_residual = set(), set(), False
        for dependency, _ in group:
            layer = dependency.target.module
            is_residual |= "AddBackward" in dependency.target.name
            if isinstance(layer, nn.Conv2d | nn.Linear):
                prunes_output = graph.is_out_channel_pruning_fn(dependency.handler)
                (outputs if prunes_output else inputs).add(names[layer])
        holds_classes = names[last_linear(module.get_classifier())] in outputs
        if holds_classes or (is_residual and scope == "inner"):
            continue
        scores = importance(group)
        if scores is not None:
            root = group[0].dep.target.module
            found.append(ChannelGroup(root, scores.detach(), inputs, outputs, len(scores)))
    return graph, found


def remaining_macs(layer_macs: dict[str, int], groups: list[ChannelGroup]) -> float:
    """Multiply-adds of the network with `kept` channels in every group: each layer shrinks with both sides."""
    total = 0.0
    for name, macs in layer_macs.items():
        share = 1.0
        for group in groups:
            if name in group.outputs or name in group.inputs:
                share *= group.share
        total += macs * share
    return total


def choose_widths(groups: list[ChannelGroup], layer_macs: dict[str, int], config: Config) -> float:
    """Lower `kept` of the groups until `config.ratio` of the multiply-adds is gone or nothing may go.

    Greedy knapsack: each turn takes the block of channels that loses the least importance for each
    multiply-add it saves. Returns the share that is saved.
    """
    total = sum(layer_macs.values())
    remaining = remaining_macs(layer_macs, groups)
    while remaining > (1 - config.ratio) * total:
        best: tuple[float, ChannelGroup, int, float] | None = None
        for group in groups:
            narrower = _next_width(group, config)
            if narrower is None:
                continue
            ranked = torch.sort(group.importance).values
            lost = float(ranked[group.width - group.kept : group.width - narrower].sum())
            before, group.kept = group.kept, narrower
            macs = remaining_macs(layer_macs, groups)
            group.kept = before
            price = lost / max(remaining - macs, 1.0)
            if best is None or price < best[0]:
                best = (price, group, narrower, macs)
        if best is None:
            break
        _, group, group.kept, remaining = best
    return 1 - remaining / total


def _next_width(group: ChannelGroup, config: Config) -> int | None:
    """The next smaller allowed width, None when the group is at its limit."""
    narrower = (group.kept - 1) // config.round_to * config.round_to
    limit = max(config.min_width, (1 - config.max_layer_ratio) * group.width)
    return narrower if narrower >= limit and narrower > 0 else None


def remove_channels(graph: tp.DependencyGraph, groups: list[ChannelGroup]) -> None:
    """Prune every group to its `kept` most important channels."""
    for group in groups:
        if group.kept < group.width:
            weakest = torch.argsort(group.importance)[: group.width - group.kept].tolist()
            prune = tp.prune_linear_out_channels
            if isinstance(group.root, nn.Conv2d):
                depthwise = group.root.groups == group.root.in_channels > 1
                prune = tp.prune_depthwise_conv_out_channels if depthwise else tp.prune_conv_out_channels
            graph.get_pruning_group(group.root, prune, weakest).prune()


def pruned_spec(module: nn.Module, dense: ModelSpec) -> ModelSpec:
    """The spec of `module` after pruning; UsageError when it no longer runs or cannot be rebuilt from its spec.

    Networks that reshape by numbers of their own (attention heads) and layers whose widths are not recorded
    come to light here, before any training. `module` is left in eval mode.
    """
    widths = read_widths(module, rebuild(dense.model_copy(update={"pruning": None})))
    spec = dense.model_copy(update={"pruning": widths})
    image = next(module.parameters()).new_zeros(1, 3, dense.preprocess.size, dense.preprocess.size)
    try:
        with torch.inference_mode():
            module.eval()(image)
            module_from_state(spec, module.state_dict(), dense.arch)(image)
    except (InputError, RuntimeError, ValueError, AssertionError) as error:
        reason = error.why if isinstance(error, InputError) else str(error)
        raise UsageError(
            f"This architecture cannot be pruned: {dense.arch!r}.",
            why=f"Without the removed channels it does not run: {reason.strip().splitlines()[0]}",
            hint="Prune a convolutional network (b0…b7, lite0…lite4, resnet…), or quantize this one.",
        ) from None
    return spec
