"""`optkit lint`."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optkit.cli import _console

if TYPE_CHECKING:
    from optkit.core.types import Artifact
    from optkit.graph.lint.base import Finding, Linted

HELP = """Say what in an ONNX file does not suit the runtime it is meant for, and what to do about it.

Nothing is executed on data: the graph is checked rule by rule, and ONNX Runtime or OpenVINO is asked which
convolutions it would run in integers. Exit code 1 when a rule finds an error.

[bold]Examples[/]

    optkit lint int8/

    optkit lint model.onnx --for tensorrt

    optkit lint model.onnx --for tensorrt --opset 17

    optkit lint model.onnx --for onnxruntime --json
"""

SHOWN_NODES = 8
COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}


def command(
    file: Annotated[str, typer.Argument(help="ONNX file, or folder of an artifact.", show_default=False)],
    target: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="Runtime: tensorrt, onnxruntime or openvino; default: the one that it was quantised for.",
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Opset that the file was asked to have, exporters may write another; default: the one that "
            "`optkit export` was asked for.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Findings by rule, errors first."""
    from optkit.core.errors import EXIT_FAILED
    from optkit.graph.lint.base import lint_file

    path, made_for, asked_opset = _resolve(Path(file))
    target = _target(target or made_for, file)
    linted = lint_file(path, target, opset or asked_opset)
    counts = Counter(found.severity.value for found in linted.findings)
    if as_json:
        _console.print_json(_to_json(file, target, linted, counts))
    else:
        _show(file, target, linted.findings, counts)
    _console.next_command(_next_command(file, target, linted.findings))
    if counts["error"]:
        raise typer.Exit(EXIT_FAILED)


def _resolve(path: Path) -> tuple[Path, str | None, int | None]:
    """The ONNX file at `path`, and of an artifact the target it was quantised for and the opset asked for."""
    from optkit.core.errors import InputError
    from optkit.core.store import read_artifact
    from optkit.core.types import Format

    if not path.is_dir():
        return path, None, None
    artifact = read_artifact(path)
    if artifact.format is not Format.ONNX:
        raise InputError(
            f"{str(path)!r} holds no ONNX file.",
            why=f"It is an artifact of the format {artifact.format.value!r}.",
            hint="Give an ONNX file, or the folder of `optkit export` or `optkit quantize`.",
        )
    made_for = artifact.manifest.config.get("target") if artifact.manifest.stage == "quantize" else None
    return artifact.file, made_for, _asked_opset(artifact)


def _asked_opset(artifact: Artifact) -> int | None:
    asked = artifact.manifest.config.get("opset") if artifact.manifest.stage == "export" else None
    return asked if isinstance(asked, int) else None


def _target(target: str | None, file: str) -> str:
    from optkit.core.errors import UsageError

    if target is None:
        raise UsageError(
            f"{file!r} does not say which runtime it is meant for.",
            hint="Name it: --for tensorrt, --for onnxruntime or --for openvino.",
        )
    return target


def _to_json(file: str, target: str, linted: Linted, counts: Counter[str]) -> dict[str, Any]:
    execution = linted.execution
    asked = execution is not None and not execution.refused and not execution.unchecked
    return {
        "file": file,
        "target": target,
        "clean": not counts["error"] and not counts["warning"],
        "counts": {severity: counts[severity] for severity in COLOURS},
        "integer_convolutions": list(execution.integer) if execution and asked else None,
        "float_convolutions": list(execution.floating) if execution and asked else None,
        "findings": [
            {
                "rule": found.rule,
                "severity": found.severity.value,
                "node": found.node,
                "reason": found.reason,
                "remedy": found.remedy,
            }
            for found in linted.findings
        ],
    }


def _show(file: str, target: str, findings: list[Finding], counts: Counter[str]) -> None:
    """One table a rule; of many nodes the first few."""
    by_rule: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        by_rule.setdefault((found.severity.value, found.rule), []).append(found)
    for (severity, rule), places in by_rule.items():
        _console.out.print(
            f"[{COLOURS[severity]}]{severity}[/] [bold]{rule}[/] ({len(places)})", highlight=False
        )
        for place in places[:SHOWN_NODES]:
            where = f"{place.node}: " if place.node else ""
            _say(f"    {where}{place.reason}")
        if len(places) > SHOWN_NODES:
            _say(f"    … and {len(places) - SHOWN_NODES} more; all of them with --json")
        if places[0].remedy:
            _say(f"    what to do: {places[0].remedy}")
    errors, warnings = counts["error"], counts["warning"]
    if errors or warnings:
        _say(f"{file} for {target}: errors {errors}, warnings {warnings}.")
    else:
        _say(f"{file} is clean for {target}.")


def _say(text: str) -> None:
    _console.out.print(text, markup=False, highlight=False, soft_wrap=True)


def _next_command(file: str, target: str, findings: list[Finding]) -> str:
    """Export or quantise anew what has errors; build or measure what has none."""
    quoted = shlex.quote(file)
    to_redo = {found.redo for found in findings if found.severity.value == "error"}
    is_float = any(found.rule == "not-quantized" for found in findings)
    if "export" in to_redo or (to_redo and is_float):
        return "optkit export CHECKPOINT"
    if to_redo:
        return f"optkit quantize FP32_MODEL --data PHOTOS --target {target}"
    if target == "tensorrt":
        return f"optkit export {quoted} --format tensorrt"
    return f"optkit bench {quoted}" + (" --runtimes openvino" if target == "openvino" else "")
