"""The application: its commands, and what becomes of their errors."""

from __future__ import annotations

import errno
import importlib
import re
import sys
import traceback
import warnings
from collections.abc import Sequence

import typer

import optkit
from optkit.cli import _console
from optkit.cli._run import PartialResults, StageCommand
from optkit.core import discover, errors
from optkit.core.machine import process_rank

PACKAGE = "optkit.cli"
HELP = """From a fine-tuned image classifier to the fastest engine within an accuracy budget, with proof.

Start with `optkit run recipes/quickstart.yaml`, or with `optkit finetune --data photos/` on your own images.

Exit codes: 0 done; 1 a check found an error; 2 an option, recipe or name that is wrong;
3 something the machine lacks; 4 a file or folder that is absent or broken;
5 a limit that the measurement is too small to decide; 70 a bug; 130 interrupted.
"""


# typer carries a click of its own, or uses the installed one: this is `ClickException` of whichever it is.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]
TRIPLES = ("--mean", "--std")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def commands() -> list[str]:
    """Names of the commands, as the folder lists them."""
    return discover.names(PACKAGE)


def build_app(names: Sequence[str], with_options: bool = True) -> typer.Typer:
    """The application with these commands; without their options it is ready sooner, and can show its help."""
    app = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=_flowing(HELP))(_root)
    for name in names:
        module = importlib.import_module(f"{PACKAGE}.{name}")
        command = module.command
        if isinstance(command, StageCommand):
            command = command.build() if with_options else _not_built
        app.command(name, help=_flowing(module.HELP))(command)
    return app


def _flowing(text: str) -> str:
    """Paragraphs without line breaks of their own: typer keeps those, whatever the width of the terminal."""
    return re.sub(r"(?<!\n)\n(?=\S)", " ", text)


def _not_built() -> None:
    """Stands for a command of which only the help is wanted."""


def _show_version(wanted: bool) -> None:
    if wanted:
        _console.out.print(f"optkit {optkit.__version__}", highlight=False)
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", help="Show the version.", is_eager=True, callback=_show_version
    ),
) -> None:
    """Options before the command."""


def main(arguments: list[str]) -> int:
    """`execute`, as all that this process does: warnings of other packages are silenced."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # third parties warn of things no user can change
    return execute(arguments)


def execute(arguments: list[str]) -> int:
    """Run one command; returns its exit code. Errors become texts and exit codes here, and nowhere else."""
    as_json = "--json" in arguments
    try:
        app = _app_for(arguments)
        result = app(_split_triples(arguments), prog_name="optkit", standalone_mode=False)
    except errors.OptkitError as error:
        if rank := process_rank():  # the main process says it in full, unless this one alone failed
            _console.err.print(f"process {rank}: {error.message}", markup=False, highlight=False)
        else:
            _console.print_error(error, as_json)
        return error.exit_code
    except CommandLineError as error:
        message = error.format_message().replace("Value error, ", "")  # type: ignore[attr-defined]
        if not message:  # no arguments at all: the help is already shown
            return errors.EXIT_USAGE
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "optkit"
        _console.print_error(errors.UsageError(message, hint=f"See `{where} --help`."), as_json)
        return errors.EXIT_USAGE
    except OSError as error:
        if error.errno not in (*NO_SPACE, *REFUSED):
            return _bug()
        _console.print_error(_of_the_disk(error), as_json)
        return errors.EXIT_MISSING
    except PartialResults as partial:
        text = f"interrupted; partial results are in {partial.where}; the command given again measures anew"
        _console.err.print(text, markup=False, highlight=False, soft_wrap=True)
        return errors.EXIT_INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        result = errors.EXIT_INTERRUPTED
    except Exception:  # noqa: BLE001 - the one place where a bug becomes an exit code; the traceback is kept
        return _bug()
    if result == errors.EXIT_INTERRUPTED:  # also what typer makes of Ctrl-C itself
        _console.err.print("interrupted; finished steps are kept, start the command again to go on")
    return result if isinstance(result, int) else errors.EXIT_OK


def _app_for(arguments: list[str]) -> typer.Typer:
    """The application with the command that is asked for, or with all when it only lists or corrects them."""
    name, known = next((argument for argument in arguments if not argument.startswith("-")), ""), commands()
    if name not in known or arguments[0] in ("-h", "--help"):
        return build_app(known, with_options=False)
    return build_app([name])


def _bug() -> int:
    if rank := process_rank():  # mostly because the main process stopped with an error of its own
        _console.err.print(f"process {rank} stopped: {sys.exc_info()[1]}", markup=False, highlight=False)
        return errors.EXIT_BUG
    traceback.print_exc()
    _console.err.print("[bold red]This is a bug in optkit.[/] Please report it with the text above.")
    return errors.EXIT_BUG


def _of_the_disk(error: OSError) -> errors.MissingError:
    what = repr(str(error.filename)) if error.filename else "a file"
    if error.errno in REFUSED:
        return errors.MissingError(
            f"The system refuses access to {what}.",
            why=error.strerror or str(error),
            hint="Change its permissions, or start the command in a folder that you may write to.",
        )
    return errors.MissingError(
        f"There is no space to write {what}.",
        why=error.strerror or str(error),
        hint="Free some space (`runs/` can be deleted at any time) and start the command again: "
        "finished steps are kept, and a training goes on.",
    )


def _split_triples(arguments: list[str]) -> list[str]:
    """`--mean .485,.456,.406` means the same as `--mean .485 .456 .406`."""
    found: list[str] = []
    for argument in arguments:
        is_value = bool(found) and found[-1] in TRIPLES
        found += argument.split(",") if is_value else [argument]
    return found
