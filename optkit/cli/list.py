"""`optkit list`."""

from __future__ import annotations

import importlib
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
RUNTIMES = "optkit.runtimes.base"
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


def unavailable_runtimes() -> dict[str, str | None]:
    """Every runtime and variant with the reason why it cannot run here, None when it can."""
    base = importlib.import_module(RUNTIMES)
    return {name: base.why_unavailable(name) for name in base.runtime_names()}


def runtime_rows() -> list[list[str]]:
    """The same for people, with what a variant is; a runtime's default one is marked."""
    rows = []
    for name, why in unavailable_runtimes().items():
        module, variant = importlib.import_module(RUNTIMES).find_runtime(name)
        mark = " (default)" if variant and variant == next(iter(module.VARIANTS)) else ""
        rows.append([name + mark, f"not here: {why}" if why else module.VARIANTS.get(variant, "available")])
    return rows
