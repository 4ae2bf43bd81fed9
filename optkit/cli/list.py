"""`optkit list`."""

from __future__ import annotations

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
    runtimes = unavailable_runtimes()
    if as_json:
        _console.print_json({"stages": discover.names(STAGES), **plugins, "runtimes": runtimes})
        return
    rows = [["stages", ", ".join(discover.names(STAGES))]]
    rows += [[kind, ", ".join(names)] for kind, names in plugins.items()]
    _console.table("plug-ins", ["kind", "names"], rows)
    _console.table(
        "runtimes", ["runtime", "state"], [[name, why or "available"] for name, why in runtimes.items()]
    )
    _console.next_command("optkit doctor")


def unavailable_runtimes() -> dict[str, str | None]:
    """Every runtime with the reason why it cannot run here, None when it can."""
    return {
        name: discover.load("optkit.runtimes", name, "runtime").unavailable()
        for name in discover.names("optkit.runtimes")
    }
