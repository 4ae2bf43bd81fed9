"""The directory listing is the registry: plug-ins are found by their file name and imported at first use."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from optkit.core.errors import MissingError, UsageError, closest


def names(package: str) -> list[str]:
    """Names of the plug-ins in `package` (dotted), without importing any of them."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ValueError(f"{package} is not a package")
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    shared = ("base", "config", "stage")
    return sorted(one.name for one in found if one.name not in shared and not one.name.startswith("_"))


def load(package: str, name: str, kind: str) -> ModuleType:
    """Import the plug-in `name` of `package`; `kind` names it in the error ("runtime", "calibrator")."""
    known = names(package)
    if name not in known:
        raise UsageError(f"Unknown {kind} {name!r}.", hint=closest(name, known))
    return importlib.import_module(f"{package}.{name}")


def installed(module: str) -> bool:
    """Whether `module` could be imported; imports nothing of it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def require(module: str, extra: str) -> None:
    """Raise MissingError unless `module` is installed; `extra` is the optkit extra that brings it."""
    if not installed(module):
        raise MissingError(
            f"The package {module!r} is not installed.",
            why=f"It belongs to optkit's extra [{extra}].",
            hint=f"pip install 'optkit[{extra}]'",
        )
