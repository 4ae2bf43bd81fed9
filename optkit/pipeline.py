"""Plan and run a recipe: every static check and every cache key first, then the work that is not yet done."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from optkit.core import discover, fingerprint, machine, store
from optkit.core.config import Input, Source, StageConfig
from optkit.core.errors import InputError, OptkitError, UsageError, closest
from optkit.core.progress import Reporter, WarningRecorder
from optkit.core.types import MANIFEST, Artifact, Context, Format, Manifest, Output
from optkit.recipe import Recipe, Step, usage_error

STAGES = "optkit.stages"
LOAD = "load"  # the stage that takes a model file from outside
BENCH, GATE = "bench", "gate"  # the stages that measure models, and that keep a budget


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came while a step measured; `artifact` is what it had until then, marked as partial."""

    def __init__(self, step: str, artifact: Artifact) -> None:
        super().__init__(step)
        self.step, self.artifact = step, artifact


@dataclass(frozen=True)
class PlannedStep:
    """A step whose config is valid, whose inputs are known and whose key is computed."""

    name: str
    stage: str
    config: StageConfig
    inputs: dict[str, tuple[str, ...]]
    key: str
    format: Format
    done: bool


@dataclass
class Plan:
    """What a recipe will do. `given` are the artifacts named by path, which exist already."""

    recipe: Recipe
    store: store.Store
    steps: dict[str, PlannedStep] = field(default_factory=dict)
    given: dict[str, Artifact] = field(default_factory=dict)


def config_class(stage: str) -> type[StageConfig]:
    """The config of a stage, without importing anything heavy."""
    known = discover.names(STAGES)
    if stage not in known:
        raise UsageError(f"Unknown stage {stage!r}.", hint=closest(stage, known))
    found: type[StageConfig] = importlib.import_module(f"{STAGES}.{stage}.config").Config
    return found


def format_of(reference: str) -> Format | None:
    """Format of the artifact or model file at a path; None where there is neither, which planning tells."""
    path = Path(reference)
    if (path / MANIFEST).is_file():
        return store.read_artifact(path).format
    if not path.is_file():
        return None
    if (owner := _owner(path)) is not None:
        return owner.format
    config = config_class(LOAD).model_validate({"path": reference})
    config.check()
    return config.produces()


def plan(recipe: Recipe, artifacts: store.Store) -> Plan:
    """Check the whole recipe and compute every key; does no work and imports no heavy package."""
    planned = Plan(recipe, artifacts)
    for name, step in recipe.steps.items():
        _plan_step(planned, name, step)
    if recipe.budget:
        _plan_budget(planned)
    if recipe.load and not any(step.stage == LOAD for step in planned.steps.values()):
        raise UsageError(
            f"{', '.join(recipe.load)}: there is no model file that these options could be for.",
            why="An artifact knows its own architecture, classes and preprocessing.",
            hint="Leave them out, or name the bare model file.",
        )
    return planned


def _plan_budget(plan: Plan) -> None:
    """The recipe's budget, kept by a step of its own: it judges the last measurement, unless it names another."""
    where = f"the budget of recipe {plan.recipe.name!r}"
    benches = [name for name, step in plan.recipe.steps.items() if step.stage == BENCH]
    if not benches:
        raise UsageError(
            f"{where[0].upper()}{where[1:]} has nothing to judge: no step measures.",
            hint="Add a step `bench: {models: [BASELINE, CANDIDATE]}` as the last one.",
        )
    name = next(name for name in (GATE, "budget", "budget-gate") if name not in plan.steps)
    _plan_step(plan, name, Step(stage=GATE, options={BENCH: benches[-1], **plan.recipe.budget}), where)


def _plan_step(plan: Plan, name: str, step: Step, where: str = "") -> None:
    where = where or f"step {name!r} of recipe {plan.recipe.name!r}"
    cls = config_class(step.stage)
    roles = {role.name: role for role in cls.inputs}
    options = {key: value for key, value in step.options.items() if key not in roles}
    if "seed" in cls.model_fields:
        options.setdefault("seed", plan.recipe.seed)
    if "data" in cls.model_fields:
        _merge_data(plan.recipe.data, cls, options, where)
    try:
        config = cls.model_validate(options)
    except ValidationError as error:
        raise usage_error(error, where, [*cls.model_fields, *roles]) from None
    inputs = {role.name: _resolve(plan, role, step.options.get(role.name), where) for role in cls.inputs}
    config.check()
    made = {role: [plan.steps[ref] for ref in refs if ref in plan.steps] for role, refs in inputs.items()}
    config.check_sources({role: [_source(plan, one) for one in steps] for role, steps in made.items()})
    key = fingerprint.of_value(
        {
            "stage": step.stage,
            "config": config.canonical(),
            "inputs": {role: [_key(plan, ref) for ref in refs] for role, refs in inputs.items()},
            "names": inputs if cls.measures else None,  # a result shows its inputs' names
            "environment": config.environment(),
            "code": fingerprint.of_code(step.stage),
        }
    )[:16]
    done = _find(plan, config, key) is not None
    plan.steps[name] = PlannedStep(name, step.stage, config, inputs, key, config.produces(), done)


def _source(plan: Plan, step: PlannedStep) -> Source:
    formats = {name: _format(plan, name) for names in step.inputs.values() for name in names}
    return Source(step.stage, step.config, step.inputs, formats)


def _format(plan: Plan, name: str) -> Format:
    """Of a step's artifact, or of one that was given."""
    return plan.steps[name].format if name in plan.steps else plan.given[name].format


def _find(plan: Plan, config: StageConfig, key: str) -> Artifact | None:
    """The artifact of `key`, unless its stage would make a better one now."""
    found = plan.store.find(key)
    return found if found and config.accepts(found.manifest) else None


def _merge_data(
    shared: str | dict[str, Any] | None, cls: type[StageConfig], options: dict[str, Any], where: str
) -> None:
    """The recipe's data, with what the step says of its own on top; `data: null` means none."""
    own = options.get("data")
    if own is None:
        if shared is not None:
            options.setdefault("data", shared)
        return
    as_mapping = {"path": own} if isinstance(own, str) else own
    base = {"path": shared} if isinstance(shared, str) else shared or {}
    if not isinstance(as_mapping, dict):
        return  # validation says what is wrong
    options["data"] = base | as_mapping if "path" not in as_mapping else as_mapping
    if "path" not in options["data"] and cls.model_fields["data"].default is None:
        raise UsageError(f"{where} has options for data, but no data.", hint="Say which, with --data.")


def _resolve(plan: Plan, role: Input, value: Any, where: str) -> tuple[str, ...]:
    """Names of the steps or given artifacts that play `role`; files from outside become `load` steps."""
    if value is None or value == []:
        if role.optional:
            return ()
        raise UsageError(
            f"{where} lacks {role.name!r}: {role.help}.", hint="Name a step, a folder or a file."
        )
    references = value if isinstance(value, list) else [value]
    if len(references) > 1 and not role.many:
        raise UsageError(f"{where} takes one {role.name!r}.", hint=f"Received {value!r}.")
    names = tuple(_reference(plan, role, str(reference), where) for reference in references)
    for name in names:
        found = _format(plan, name)
        if found not in role.formats:
            wanted = " or ".join(role.formats)
            raise UsageError(
                f"{name!r} cannot be the {role.name!r} of {where}: it is {found.value}.",
                why=f"{role.help} must be {wanted}.",
                hint="`optkit sample` chooses calibration images."
                if Format.IMAGES in role.formats
                else "`optkit export` makes ONNX from a checkpoint and an engine from ONNX.",
            )
    return names


def _reference(plan: Plan, role: Input, reference: str, where: str) -> str:
    if reference in plan.steps or reference in plan.given:
        return reference
    path = Path(reference)
    if (path / MANIFEST).is_file():
        plan.given[reference] = store.read_artifact(path)
        return reference
    if path.is_file():
        if (owner := _owner(path)) is not None:
            plan.given[reference] = owner
            return reference
        _plan_step(plan, reference, Step(stage=LOAD, options={**plan.recipe.load, "path": reference}))
        return reference
    if reference in plan.recipe.steps:
        raise UsageError(f"{where} uses {reference!r}, which comes later.", hint="Put it before.")
    if path.exists():
        raise InputError(
            f"{reference!r} is neither an artifact nor a model file.",
            why=f"The folder has no {MANIFEST}.",
            hint=f"Choose images from it with `optkit sample --data {reference}`, and give the result."
            if Format.IMAGES in role.formats
            else "Give an artifact folder, a .safetensors, .pth, .onnx or .plan file.",
        )
    raise InputError(
        f"{where} names {reference!r}, and there is no such step, folder or file.",
        hint=closest(reference, plan.steps) if plan.steps else "Check the path.",
    )


def _owner(path: Path) -> Artifact | None:
    """The artifact whose model file `path` is: its manifest knows what the bare file cannot say."""
    if not (path.parent / MANIFEST).is_file():
        return None
    try:
        artifact = store.read_artifact(path.parent)
    except InputError:  # some other program's manifest.json
        return None
    is_model = path.name in artifact.manifest.files and path.name == artifact.format.filename
    return artifact if is_model else None


def _key(plan: Plan, name: str) -> str:
    if name in plan.steps:
        return plan.steps[name].key
    # The manifest holds the digests of the files, so its own digest stands for all of them.
    return fingerprint.of_file(plan.given[name].path / MANIFEST)[:16]


def run(
    plan: Plan,
    reporter: Reporter,
    fresh: frozenset[str] = frozenset(),
    finished: Callable[[str, Artifact], None] = lambda name, artifact: None,
) -> dict[str, Artifact]:
    """Do what is not done yet; returns the artifact of every step and of every given input, by name.

    Steps in `fresh` are done again although the store has them, and so is a measurement of what was done again.
    `finished` is called after each step, so that what is complete can be shown while the rest goes on.
    """
    plan.store.collect_garbage()
    artifacts = dict(plan.given)
    for name, artifact in artifacts.items():
        if broken := store.damage(artifact):
            raise InputError(
                f"{broken!r} in artifact {name!r} is not what its manifest says.",
                why="The file was changed or damaged after it was written.",
                hint="Make the artifact again.",
            )
    for step in plan.steps.values():
        if not step.done:
            _check_heavily(step)
    remade: set[str] = set()
    for name, step in plan.steps.items():
        is_stale = step.config.measures and not remade.isdisjoint(chain(*step.inputs.values()))
        found = None if name in fresh or is_stale else _find(plan, step.config, step.key)
        if found:
            reporter.info(f"{name}: done before ({step.key})")
        else:
            remade.add(name)
        artifacts[name] = found or _run_step(plan, step, artifacts, reporter)
        if not machine.process_rank():
            finished(name, artifacts[name])
        if artifacts[name].manifest.details.get("interrupted"):
            raise Interrupted(name, artifacts[name])
    return artifacts


def _check_heavily(step: PlannedStep) -> None:
    """What only the stage's own packages can tell (is there such an architecture?), before the first minute."""
    check = getattr(importlib.import_module(f"{STAGES}.{step.stage}.stage"), "check", None)
    if check is not None:
        check(step.config)


def _run_step(plan: Plan, step: PlannedStep, artifacts: dict[str, Artifact], reporter: Reporter) -> Artifact:
    is_main = not machine.process_rank()
    if not is_main and step.config.processes() == 1:
        return plan.store.wait_for(step.key)
    stage = importlib.import_module(f"{STAGES}.{step.stage}.stage")
    recorder = WarningRecorder(reporter)
    inputs = {role: {name: artifacts[name] for name in names} for role, names in step.inputs.items()}
    reporter.info(step.name if step.name == step.stage else f"{step.name}: {step.stage}")
    with plan.store.workdir(step.key) as workdir:
        started = time.monotonic()
        try:
            output: Output = stage.run(
                step.config, inputs, Context(workdir, recorder, plan.store.scratch(step.key))
            )
        except OptkitError as error:
            error.add_note(f"in step {step.name!r}")
            raise
        if not is_main:  # the main process commits what all have worked on
            return plan.store.wait_for(step.key)
        manifest = Manifest(
            stage=step.stage,
            key=step.key,
            format=output.format,
            precision=output.precision,
            spec=output.spec,
            config=step.config.model_dump(mode="json"),
            inputs={role: [artifacts[name].key for name in names] for role, names in step.inputs.items()},
            metrics=output.metrics,
            measurements=output.measurements,
            history=tuple(output.history),
            details=output.details,
            warnings=tuple(recorder.warnings),
            seconds=round(time.monotonic() - started, 3),
        )
        return plan.store.commit(workdir, manifest)
