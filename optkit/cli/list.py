"""`optkit list`."""

from __future__ import annotations

from types import ModuleType
from typing import Annotated

import typer

from optkit.cli import _console
from optkit.core import discover

HELP = """List stages, runtimes and plug-ins, and why a runtime is not available here.

[bold]Examples[/]

    optkit list

    optkit list --json
"""

STAGES = "optkit.stages"
RUNTIMES = "optkit.runtimes"
PLUGINS = {
    "data sources": "optkit.data.sources",
    "distillation losses": "optkit.train.losses",
    "pruning criteria": "optkit.stages.prune.criteria",
    "calibrators": "optkit.stages.quantize.calibrators",
    "rungs of the recovery ladder": "optkit.stages.quantize.recovery",
    "quantisation targets": "optkit.stages.quantize.placement",
}


def command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """What this installation has."""
    plugins = {kind: discover.names(package) for kind, package in PLUGINS.items()}
    if as_json:
        _console.print_json({"stages": discover.names(STAGES), **plugins, "runtimes": unavailable_runtimes()})
        return
    rows = [["stages", ", ".join(discover.names(STAGES))]]
    rows += [[kind, ", ".join(names)] for kind, names in plugins.items()]
    _console.table("plug-ins", ["kind", "names"], rows)
    _console.table("runtimes", ["runtime", "what it is, or why it is not here"], runtime_rows())
    _console.next_command("optkit doctor")


def _runtimes() -> list[tuple[str, ModuleType, str]]:
    """Every runtime with each of its variants: the name that the options take, the module, the variant."""
    found = []
    for name in discover.names(RUNTIMES):
        module = discover.load(RUNTIMES, name, "runtime")
        variants = [(f"{name}:{variant}", module, variant) for variant in module.VARIANTS]
        found += variants or [(name, module, "")]
    return found


def unavailable_runtimes() -> dict[str, str | None]:
    """Every runtime and variant with the reason why it cannot run here, None when it can."""
    return {name: module.unavailable(variant) for name, module, variant in _runtimes()}


def runtime_rows() -> list[list[str]]:
    """The same for people, with what a variant is; a runtime's default one is marked."""
    rows = []
    for name, module, variant in _runtimes():
        why = module.unavailable(variant)
        mark = " (default)" if variant and variant == next(iter(module.VARIANTS)) else ""
        rows.append([name + mark, f"not here: {why}" if why else module.VARIANTS.get(variant, "available")])
    return rows
