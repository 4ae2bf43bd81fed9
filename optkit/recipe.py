"""A recipe: a small graph of stages, read from YAML or built by a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from optkit.core.errors import InputError, UsageError, closest
from optkit.core.types import Record


class Step(Record):
    """One stage of a recipe. `options` holds the stage's config and, under a role's name, the step, artifact
    folder or model file that plays this role."""

    stage: str
    options: dict[str, Any] = Field(default_factory=dict)


class Recipe(Record):
    """Steps in the order in which they run; a step may name only earlier ones.

    `data` and `seed` are the defaults of every step that reads data or draws random numbers; `load` holds
    options (preprocessing, classes) for model files that are named directly. `budget` are the options of a
    `gate` step that judges the last bench step. Paths are relative to the current folder.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = Field(default=0, ge=0)
    data: str | dict[str, Any] | None = None
    load: dict[str, Any] = Field(default_factory=dict)
    budget: dict[str, Any] = Field(default_factory=dict)
    steps: dict[str, Step] = Field(min_length=1)

    @field_validator("steps", mode="before")
    @classmethod
    def _read_steps(cls, steps: Any) -> Any:
        """`prune: {ratio: 0.4}` is short for `prune: {stage: prune, options: {ratio: 0.4}}`."""
        if not isinstance(steps, dict):
            return steps
        read = {}
        for name, step in steps.items():
            if isinstance(step, Step):
                read[name] = step
                continue
            if step is not None and not isinstance(step, dict):
                raise ValueError(f"step {name!r} is not a mapping of options")
            options = dict(step or {})
            read[name] = Step(stage=str(options.pop("stage", name)), options=options)
        return read

    @field_validator("steps")
    @classmethod
    def _check_names(cls, steps: dict[str, Step]) -> dict[str, Step]:
        for name in steps:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"step name {name!r}: use letters, digits, '-' and '_'")
        return steps


def usage_error(error: ValidationError, where: str, known: list[str]) -> UsageError:
    """The first problem pydantic found, as one error that says where and what to do.

    An unknown key comes first: it is often the reason why another one is missing.
    """
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return UsageError(f"Unknown key {field!r} in {where}.", hint=closest(field.split(".")[-1], known))
    received = "" if first["type"] == "missing" else f"Received {first['input']!r}. "
    message = first["msg"].removeprefix("Value error, ")
    return UsageError(
        f"{field or where} in {where} is not valid: {message}.",
        hint=f"{received}Compare with `optkit COMMAND --help` and the recipes folder.",
    )


def recipe_from_value(value: Any, where: str) -> Recipe:
    """Validate plain data as a recipe; `where` names it in errors."""
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not a recipe.", why="Its top level is not a mapping with 'steps'.")
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise usage_error(error, where, list(Recipe.model_fields)) from None


def recipe_from_yaml(path: Path, overrides: list[str]) -> Recipe:
    """Read a recipe and apply `--set step.option=value` overrides; the file's name is the default name."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no recipe {str(path)!r}.", hint="Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        why = str(error).replace("\n", " ")
        raise InputError(f"{str(path)!r} is not a YAML file.", why=why, hint="Mend its syntax.") from None
    if isinstance(value, dict):
        value.setdefault("name", path.stem)
        for override in overrides:
            _override(value, override)
    return recipe_from_value(value, f"recipe {str(path)!r}")


def _override(value: dict[str, Any], override: str) -> None:
    """Apply one `step.option=value` or `data=value` in place."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UsageError(f"--set {override!r} has no '='.", hint="Write --set step.option=value.")
    parts = key.strip().split(".")
    target = _owner(value, parts, override)
    for part in parts[:-1]:
        inner = target.get(part)
        if not isinstance(inner, dict):  # `data: digits` becomes `data: {path: digits}`
            inner = {} if inner is None else {"path": inner}
            target[part] = inner
        target = inner
    try:
        target[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {override!r}: {text!r} is not a YAML value.", hint="Quote it.") from None


def _owner(value: dict[str, Any], parts: list[str], override: str) -> dict[str, Any]:
    """Where an override goes: the recipe itself, or its steps. A stage that only one step has names the step."""
    steps = value.get("steps")
    steps = steps if isinstance(steps, dict) else {}
    if parts[0] in Recipe.model_fields:
        return value
    stages = {
        name: (step or {}).get("stage", name) for name, step in steps.items() if isinstance(step, dict | None)
    }
    meant = [name for name, stage in stages.items() if stage == parts[0]]
    if parts[0] not in steps and len(meant) == 1:
        parts[0] = meant[0]
    if parts[0] not in steps or len(parts) < 2:
        known = [*steps, *Recipe.model_fields]
        raise UsageError(f"--set {override!r} names no option of a step.", hint=closest(parts[0], known))
    return steps


def recipe_to_yaml(recipe: Recipe) -> str:
    """The recipe in full, as YAML that `recipe_from_yaml` reads back to the same recipe."""
    value = recipe.model_dump(mode="json", exclude_defaults=True)
    value["steps"] = {name: {"stage": step.stage, **step.options} for name, step in recipe.steps.items()}
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
