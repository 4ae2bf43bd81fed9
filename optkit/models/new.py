"""A new network out of the options: architecture, head and weights."""

from __future__ import annotations

from torch import nn

from optkit.core.progress import Reporter
from optkit.core.types import ModelSpec, TrainedOn
from optkit.models.build import build, check_size, classifier, new_spec
from optkit.models.config import NewModelConfig
from optkit.models.head import init_head
from optkit.models.weights import check_weights, pretrained


def check_network(config: NewModelConfig) -> nn.Module:
    """The network of `config` with two classes; raises when it cannot get the head, the size or the weights."""
    module = build(config.arch, 2, config.head.spec(), config.size, config.drop_path)
    classifier(module, config.arch)
    check_weights(module, config.arch, config.weights)
    if config.size is not None:
        check_size(module, config.arch, config.size)
    return module


def network_spec(
    config: NewModelConfig, class_names: tuple[str, ...], native_size: int | None, trained_on: TrainedOn
) -> ModelSpec:
    """Spec of the network of `config` for images of `class_names`; `native_size` as in `new_spec`."""
    return new_spec(config.arch, class_names, config.size, native_size, (trained_on,), config.head.spec())


def new_network(config: NewModelConfig, spec: ModelSpec, reporter: Reporter) -> tuple[nn.Module, str]:
    """The network of `spec` with the weights that `config` names, and a word on where they came from."""
    size = spec.preprocess.size
    module, origin = pretrained(
        config.arch, spec.num_classes, config.weights, reporter, spec.head, size, config.drop_path
    )
    check_size(module, config.arch, size)
    # A network that learns as a whole starts as it is made.
    if origin != "scratch" or config.head.init != "zero":
        init_head(module.get_classifier(), config.head.init)
    return module, origin
