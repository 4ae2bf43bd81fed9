"""How a stage's command runs: a recipe with one stage, through the same pipeline as every other recipe."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.cli import _console

if TYPE_CHECKING:
    from optkit.core.types import Artifact

RUNS = Path("runs")
STORE = RUNS / ".store"

Steps = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class StageCommand:
    """The command of a stage; its options are read from the stage's Config when they are needed.

    `show` prints the result for people, `to_json` says it to programs, `next_command(artifact, where)` is
    what to type next. `positional` and `hidden` are as in `stage_options`; `expand` turns the step's options
    into several steps, the last of which is the result.
    """

    stage: str
    help: str
    show: Callable[[Artifact], None]
    to_json: Callable[[Artifact], dict[str, Any]]
    next_command: Callable[[Artifact, str], str]
    positional: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    expand: Callable[[dict[str, Any]], Steps] | None = None

    def build(self) -> Callable[..., None]:
        """The function that typer calls."""
        from optkit.cli._options import make_command, nest, stage_options

        own, load = stage_options(self.stage, self.positional, self.hidden)

        def body(values: dict[str, Any], out: Path | None, as_json: bool) -> None:
            self._run(nest(own, values), nest(load, values), out, as_json)

        return make_command(body, own + load, self.help)

    def _run(self, options: dict[str, Any], load: dict[str, Any], out: Path | None, as_json: bool) -> None:
        from optkit import pipeline
        from optkit.core.store import Store, copy_artifact
        from optkit.recipe import recipe_from_value

        steps = self.expand(options) if self.expand else {self.stage: {"stage": self.stage, **options}}
        value = {"name": self.stage, "load": load, "steps": steps}
        plan = pipeline.plan(recipe_from_value(value, f"optkit {self.stage}"), Store(STORE))
        last = list(plan.steps)[-1]
        measures = plan.steps[last].config.measures
        with _console.ConsoleReporter() as reporter:
            # A measurement is asked for to be made now; a model is the same one when made again.
            fresh = frozenset({last} if measures else ())
            artifact = pipeline.run(plan, reporter, fresh)[last]
        where = out or RUNS / self.stage
        is_kept = out is not None or not measures
        if is_kept:
            copy_artifact(artifact, where)
        if as_json:
            _console.print_json(self.to_json(artifact) | ({"path": str(where)} if is_kept else {}))
        else:
            self.show(artifact)
            if is_kept:
                _console.err.print(f"saved in {where}", highlight=False)
        _console.next_command(self.next_command(artifact, shlex.quote(str(where))))


def model_to_json(artifact: Artifact) -> dict[str, Any]:
    """A model artifact for programs."""
    manifest = artifact.manifest
    return {
        "key": artifact.key,
        "stage": manifest.stage,
        "format": manifest.format.value,
        "precision": manifest.precision.value,
        **manifest.metrics,
        "size_bytes": artifact.file.stat().st_size,
        "warnings": list(manifest.warnings),
    }


def show_model(artifact: Artifact) -> None:
    """A model artifact for people."""
    manifest = artifact.manifest
    metrics = manifest.metrics
    rows = [
        ["file", f"{artifact.format.filename}, {artifact.file.stat().st_size / 1e6:.1f} MB"],
        ["precision", manifest.precision.value],
    ]
    if manifest.spec:
        rows.append(
            [
                "model",
                f"{manifest.spec.arch}, {manifest.spec.num_classes} classes, "
                f"{manifest.spec.preprocess.size} px",
            ]
        )
    if "top1" in metrics:
        rows.append(["top-1", f"{metrics['top1']:.3f} on {metrics['n']} validation images"])
    for name in ("macs", "params"):
        if name in metrics:
            rows.append([name, f"{metrics[name] / 1e6:,.2f} M"])
    rows.append(["made in", f"{manifest.seconds:.1f} s"])
    _console.table(manifest.stage, ["", "value"], rows)
