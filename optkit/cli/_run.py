"""How a stage's command runs: a recipe with one stage, through the same pipeline as every other recipe."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from optkit.cli import _console
from optkit.core.errors import EXIT_OK

if TYPE_CHECKING:
    from optkit.cli._options import Option
    from optkit.core.types import Artifact
    from optkit.pipeline import Plan

RUNS = Path("runs")
STORE = RUNS / ".store"

Steps = dict[str, dict[str, Any]]


class PartialResults(Exception):
    """Ctrl-C came while models were measured; `where` says what was kept of it."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


@dataclass(frozen=True)
class Done:
    """What a command did, for naming the next one: texts ready for a shell.

    `where` is the folder of the result, `models` what was given, `data` is ` --data X`, or empty where the
    default is meant or no step had any.
    """

    artifact: Artifact
    where: str
    models: str
    data: str


@dataclass(frozen=True)
class File:
    """A file that a command writes where its option asks for it; `text` is what it holds."""

    option: str
    help: str
    text: Callable[[Artifact], str]


@dataclass(frozen=True)
class StageCommand:
    """The command of a stage; its options are read from the stage's Config when they are needed.

    `show` prints the result for people, `to_json` says it to programs, `next_command(done)` is what to type
    next. `positional` and `hidden` are as in `stage_options`; `expand(options, load)` turns the step's
    options, and those for model files, into several steps, the last of which is the result; `also` is a stage
    whose options the command takes besides. `exit_code` is what the command ends with, once the result is shown;
    `keeps` saves a measurement too without --out, `files` are what it writes beside the result.
    """

    stage: str
    help: str
    show: Callable[[Artifact], None]
    to_json: Callable[[Artifact], dict[str, Any]]
    next_command: Callable[[Done], str]
    positional: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    expand: Callable[[dict[str, Any], dict[str, Any]], Steps] | None = None
    exit_code: Callable[[Artifact], int] = lambda artifact: EXIT_OK
    keeps: bool = False
    also: str = ""
    files: tuple[File, ...] = ()

    def build(self) -> Callable[..., None]:
        """The function that typer calls."""
        from optkit.cli._options import file_option, make_command, nest, stage_options

        own, load = stage_options(self.stage, self.positional, self.hidden)
        besides: list[Option] = []
        if self.also:
            taken = {option.name for option in own}
            besides, load = stage_options(self.also, self.positional, self.hidden)
            besides, load = ([one for one in found if one.name not in taken] for found in (besides, load))
            own += besides

        def body(values: dict[str, Any], out: Path | None, as_json: bool) -> None:
            # `expand` sees what was asked of the other stage, not its defaults.
            values |= {one.name: None for one in besides if values[one.name] == one.default}
            files = {path: file.text for file in self.files if (path := values.get(file.option))}
            self._run(nest(own, values), nest(load, values), out, as_json, files)

        written = [file_option(file.option, file.help) for file in self.files]
        return make_command(body, own + load + written, self.help)

    def _run(
        self,
        options: dict[str, Any],
        load: dict[str, Any],
        out: Path | None,
        as_json: bool,
        files: dict[Path, Callable[[Artifact], str]],
    ) -> None:
        from optkit import pipeline
        from optkit.core.machine import process_rank
        from optkit.core.store import Store, copy_artifact, write_atomically
        from optkit.recipe import recipe_from_value

        steps = self.expand(options, load) if self.expand else {self.stage: {"stage": self.stage, **options}}
        value = {"name": self.stage, "load": load, "steps": steps}
        plan = pipeline.plan(recipe_from_value(value, f"optkit {self.stage}"), Store(STORE))
        last = list(plan.steps)[-1]
        measures = plan.steps[last].config.measures
        where = out or RUNS / self.stage
        is_kept = out is not None or not measures or self.keeps
        if is_kept:
            _check_target(where, plan)
        # A measurement is asked for to be made now; a model is the same one when made again.
        fresh = frozenset(name for name, step in plan.steps.items() if measures and step.config.measures)
        partial: Path | None = None
        try:
            with _console.ConsoleReporter() as reporter:
                artifact = pipeline.run(plan, reporter, fresh)[last]
        except pipeline.Interrupted as error:
            artifact = error.artifact
            partial = where if error.step == last and is_kept else RUNS / artifact.manifest.stage
        if process_rank():  # the main process shows and keeps what all have worked on
            if partial:
                raise KeyboardInterrupt
            return
        if partial or is_kept:
            copy_artifact(artifact, partial or where)
        if partial and artifact.manifest.stage != self.stage:  # this command's own step has not begun
            raise PartialResults(str(partial))
        for path, text in files.items():
            write_atomically(path, text(artifact))
        self._tell(artifact, where if is_kept else None, as_json)
        if partial:
            raise PartialResults(str(partial))
        done = Done(artifact, shlex.quote(str(where)), shlex.join(_models(plan)), _data_flag(plan))
        _console.next_command(self.next_command(done))
        if code := self.exit_code(artifact):
            raise typer.Exit(code)

    def _tell(self, artifact: Artifact, kept: Path | None, as_json: bool) -> None:
        if as_json:
            _console.print_json(self.to_json(artifact) | ({"path": str(kept)} if kept else {}))
            return
        self.show(artifact)
        if kept:
            _console.err.print(f"saved in {kept}", highlight=False)


def _check_target(where: Path, plan: Plan) -> None:
    """Refuse before the work what could not be saved after it."""
    from optkit.core.errors import InputError
    from optkit.core.store import check_target

    check_target(where)
    for name, artifact in plan.given.items():
        if where.resolve() == artifact.path.resolve():
            raise InputError(
                f"{str(where)!r} is both the input and where the result goes.",
                why=f"The result would replace {name!r}.",
                hint="Give another folder with --out.",
            )


def _models(plan: Plan) -> list[str]:
    """The models that were given, in order, or the measurements; what the command's own steps hand on is not among
    them."""
    given = {name: artifact.format for name, artifact in plan.given.items()}
    loaded = {name: step.format for name, step in plan.steps.items() if name not in plan.recipe.steps}
    inputs = [name for step in plan.steps.values() for names in step.inputs.values() for name in names]
    formats = given | loaded
    models = [name for name in dict.fromkeys(inputs) if name in formats and formats[name].is_model]
    return models or list(plan.given)


def _data_flag(plan: Plan) -> str:
    """` --data X` as the last step that had data had it."""
    configs = [artifact.manifest.config for artifact in plan.given.values()]
    configs += [step.config.model_dump() for step in plan.steps.values()]
    paths = [config["data"]["path"] for config in configs if config.get("data")]
    return f" --data {shlex.quote(paths[-1])}" if paths and paths[-1] != "digits" else ""


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
