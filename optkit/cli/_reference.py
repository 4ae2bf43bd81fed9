"""The generated parts of the README: `python -m optkit.cli._reference [--check] README.md`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from optkit.cli._app import build_app, commands

BEGIN = "<!-- generated: command reference -->"
END = "<!-- end of the command reference -->"


def reference() -> str:
    """Every command with its help and its options, as Markdown."""
    group: Any = typer.main.get_command(build_app(commands()))
    parts = []
    for name, command in sorted(group.commands.items()):
        context = typer.Context(command, info_name=f"optkit {name}")
        usage = " ".join([f"optkit {name}", *_arguments(command)])
        parts.append(f"### `{usage}`\n\n{_markdown(command.help or '')}\n\n{_options(command, context)}")
    return "\n\n".join(parts)


def _markdown(text: str) -> str:
    """Help text of the terminal → Markdown."""
    return text.strip().replace("[bold]", "**").replace("[/]", "**").replace("\\[", "[")


def _arguments(command: Any) -> list[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    return [
        (parameter.metavar or parameter.name.upper()) + ("…" if parameter.nargs != 1 else "")
        for parameter in arguments
    ]


def _options(command: Any, context: typer.Context) -> str:
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for parameter in command.params:
        if parameter.param_type_name != "option" or parameter.name == "help":
            continue
        default = parameter.default
        shown = "" if default is None or default is False or callable(default) else f"`{_plain(default)}`"
        names = " / ".join([*parameter.opts, *parameter.secondary_opts])
        help_text = (parameter.help or "").replace("|", "\\|")
        rows.append(f"| `{names}` | {shown} | {help_text} |")
    return "\n".join(rows)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def updated(text: str) -> str:
    """`text` with the part between the markers generated anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write the file, or with --check say whether it is up to date."""
    path = Path(arguments[-1])
    text = path.read_text(encoding="utf-8")
    if "--check" not in arguments:
        path.write_text(updated(text), encoding="utf-8")
    elif text != updated(text):
        sys.stderr.write(f"{path} is not up to date: run `make readme`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
