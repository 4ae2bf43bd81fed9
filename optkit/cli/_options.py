"""A stage's Config → the options of its command: every option is defined once, in the Config."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from optkit.core.config import Config, Input, StageConfig
from optkit.core.types import Record
from optkit.pipeline import LOAD, config_class

PANELS = {"head": "New head", "data": "Data", "augment": "Augmentation", "train": "Training"}
LOAD_PANEL = "Model files that do not say it themselves"
RENAMED = {"data.path": "data", "augment.enabled": "augment"}


@dataclass(frozen=True)
class Option:
    """One option of a command: its name, where its value goes in a recipe's step, and what it accepts."""

    name: str
    target: tuple[str, ...]
    annotation: Any
    default: Any = None
    required: bool = False
    is_list: bool = False


def _cli_type(annotation: Any) -> Any:
    """The type the command line parses: unions with None lose it, open tuples are written with commas."""
    arguments = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _cli_type(arguments[0]) if len(arguments) == 1 else str
    if origin is Annotated:
        return _cli_type(arguments[0])
    if origin is tuple and arguments[-1] is Ellipsis:
        return str  # comma-separated
    return annotation


def _is_open_tuple(annotation: Any) -> bool:
    """Whether a field takes any number of plain values; a list of groups is written as YAML."""
    return any(
        typing.get_origin(kind) is tuple
        and typing.get_args(kind)[-1] is Ellipsis
        and not (isinstance(inner := typing.get_args(kind)[0], type) and issubclass(inner, Record))
        for kind in (annotation, *typing.get_args(annotation))
    )


def _panel(config: type[Config], name: str) -> str | None:
    """Title of the options that are defined with `name`: that of the class it comes from."""
    owner = next((cls for cls in config.__mro__ if name in vars(cls).get("__annotations__", {})), config)
    title: str | None = vars(owner).get("panel")
    return title


def _group_class(field: FieldInfo) -> type[Config] | None:
    """The Config that a field nests, None for a plain field."""
    for kind in (field.annotation, *typing.get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Config):
            return kind
    return None


def _field_options(
    config: type[Config], path: tuple[str, ...] = (), panel: str | None = None, absent: bool = False
) -> list[Option]:
    """Options of every field. `absent` leaves the defaults out: the whole group may stay away."""
    found = []
    # Of a group that is put together from others, its own options come first.
    is_inherited = {
        name: bool(path) and _panel(config, name) != _panel(config, "") for name in config.model_fields
    }
    for name, field in sorted(config.model_fields.items(), key=lambda item: is_inherited[item[0]]):
        target = (*path, name)
        group = _group_class(field)
        if group is not None:
            found += _field_options(group, target, PANELS[name], field.default is None)
            continue
        flag = RENAMED.get(".".join(target), name)
        kind = _cli_type(field.annotation)
        dashed = f"--{flag.replace('_', '-')}"
        names = f"{dashed}/--no-{dashed[2:]}" if kind is bool else dashed
        title = _panel(config, name) or panel
        info = typer.Option(names, help=field.description, rich_help_panel=title)
        default = None if absent or field.is_required() or field.default == () else field.default
        if kind is str and default is not None:
            default = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        is_list = _is_open_tuple(field.annotation)
        found.append(
            Option(flag, target, Annotated[kind | None, info], default, field.is_required(), is_list)
        )
    return found


def _role_option(role: Input, positional: bool) -> Option:
    kind: Any = list[str] if role.many else str
    text = role.help[0].upper() + role.help[1:] + "."
    if positional:
        info: Any = typer.Argument(help=text, show_default=False, metavar=role.name.upper())
    else:
        info = typer.Option(f"--{role.name}", help=text, show_default=False)
    return Option(role.name, (role.name,), Annotated[kind | None, info], required=not role.optional)


def stage_options(
    stage: str, positional: tuple[str, ...] = (), hidden: tuple[str, ...] = ()
) -> tuple[list[Option], list[Option]]:
    """Options of the stage itself, and those for model files that are named directly.

    `positional` are roles and fields given without a flag, `hidden` are fields the command sets itself.
    """
    config: type[StageConfig] = config_class(stage)
    roles = [_role_option(role, role.name in positional) for role in config.inputs if role.name not in hidden]
    fields = [option for option in _field_options(config) if option.name not in hidden]
    fields = [_as_argument(option) if option.name in positional else option for option in fields]
    own = roles + fields
    taken = {option.name for option in own}
    load = [
        option
        for option in _field_options(config_class(LOAD), panel=LOAD_PANEL)
        if config.inputs and option.name not in taken | {"path", "seed"}
    ]
    return own, load


def _as_argument(option: Option) -> Option:
    kind, info = typing.get_args(option.annotation)
    kind = list[str] if option.is_list else kind
    argument = typer.Argument(help=info.help, metavar=option.name.upper())
    return Option(
        option.name, option.target, Annotated[kind, argument], option.default, option.required, option.is_list
    )


def nest(options: list[Option], values: dict[str, Any]) -> dict[str, Any]:
    """The values that were given, at their places in a recipe's step."""
    step: dict[str, Any] = {}
    for option in options:
        value = values.get(option.name)
        if value is None or value == []:
            continue
        inner = step
        for part in option.target[:-1]:
            inner = inner.setdefault(part, {})
        if option.is_list and isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        inner[option.target[-1]] = list(value) if isinstance(value, tuple) else value
    return step


OUT = Annotated[
    Path | None, typer.Option("--out", help="Folder to put the result in.", rich_help_panel="Output")
]
JSON = Annotated[
    bool,
    typer.Option("--json", help="One JSON object on stdout; progress on stderr.", rich_help_panel="Output"),
]


def file_option(name: str, help: str) -> Option:
    """The option for a file that a command writes beside its result."""
    info = typer.Option(f"--{name}", help=help, dir_okay=False, rich_help_panel="Output")
    return Option(name, (name,), Annotated[Path | None, info])


def make_command(
    body: Callable[[dict[str, Any], Path | None, bool], None], options: list[Option], help: str
) -> Callable[..., None]:
    """A function that typer reads like a hand-written one; calls `body(values, out, as_json)`."""
    parameters = []
    for option in sorted(options, key=lambda option: not option.required):
        default = inspect.Parameter.empty if option.required else option.default
        parameters.append((option.name, option.annotation, default))
    parameters += [("out", OUT, None), ("json", JSON, False)]

    def command(*arguments: Any, **values: Any) -> None:
        out, as_json = values.pop("out"), values.pop("json")
        body(values, out, as_json)

    command.__doc__ = help
    command.__annotations__ = {name: annotation for name, annotation, _ in parameters}
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, annotation, default in parameters
        ]
    )
    return command
