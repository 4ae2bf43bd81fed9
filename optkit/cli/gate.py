"""`optkit gate`."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import Done, File, StageCommand, Steps
from optkit.core.errors import EXIT_FAILED, EXIT_OK, EXIT_UNDECIDED, UsageError

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Say whether a model keeps its limits: pass, fail, or cannot tell, and what would decide it.

Given models, it measures them first as `optkit bench` does, with the options of that command; the first is the
baseline, and one other is judged. Given the folder of an earlier `optkit bench`, it judges that.

Every estimate has an interval at --confidence. A limit is kept when the whole interval keeps it and broken when the
whole interval breaks it; between the two the verdict is "cannot tell", with the number of images or seconds more that
would decide it if the estimate stays.

Exit codes: 0 pass; 1 fail, or the process of the judged model or its baseline crashed; 5 cannot tell. In JUnit XML
"cannot tell" and a crash are errors, as CI systems let skipped tests pass. Ctrl-C while models are measured leaves the
partial measurement in runs/bench.

[bold]Examples[/]

    optkit gate onnx/ int8/ --data photos/ --max-drop 0.5 --min-speedup 1.5

    optkit gate runs/bench --max-drop 0.5 --max-latency-ms 20 --latency-percentile p99

    optkit gate ft/ onnx/ int8/ --candidate int8 --data photos/ --max-drop 1 --max-bytes 6000000

    optkit gate onnx/ int8/ --min-speedup 1.2 --seconds 20 --junit gate.xml
"""

CODES = {"pass": EXIT_OK, "fail": EXIT_FAILED, "cannot tell": EXIT_UNDECIDED}
COLOURS = {"pass": "green", "fail": "red", "cannot tell": "yellow"}
BENCH = "bench"  # the step that measures what is given as models


def expand(options: dict[str, Any], load: dict[str, Any]) -> Steps:
    """The measurement of models, and the judgement of it; a measurement that is given is only judged."""
    from optkit.core.types import Format  # --help needs neither
    from optkit.pipeline import config_class, format_of

    models = options.pop("models")
    fields = config_class("gate").model_fields
    limits = {name: value for name, value in options.items() if name in fields}
    measuring = {name: value for name, value in options.items() if name not in fields}
    if not any(format_of(model) is Format.RESULT for model in models):
        bench = {"stage": "bench", "models": models, **measuring}
        return {BENCH: bench, "gate": {"stage": "gate", "bench": BENCH, **limits}}
    if len(models) > 1:
        raise UsageError(
            "One measurement is judged at a time.", hint="Give the folder of one `optkit bench`, or models."
        )
    if measuring:
        raise UsageError(
            f"{', '.join(measuring)}: {models[0]!r} is measured already.",
            hint="Leave them out, or give the models themselves.",
        )
    return {"gate": {"stage": "gate", "bench": models[0], **limits}}


def to_json(artifact: Artifact) -> dict[str, Any]:
    """`{"verdict": …, "criteria": […]}`."""
    return {**artifact.manifest.details, "warnings": list(artifact.manifest.warnings)}


def show(artifact: Artifact) -> None:
    """A line for each limit, and the verdict."""
    details = artifact.manifest.details
    for criterion in details["criteria"]:
        verdict = criterion["verdict"]
        _console.out.print(f"[{COLOURS[verdict]}]{verdict:11}[/] ", end="", highlight=False)
        _say(criterion["text"])
    against = (
        f" against {details['baseline']} in {details['baseline_runtime']}" if details["baseline"] else ""
    )
    _console.out.print(f"[bold {COLOURS[details['verdict']]}]{details['verdict'].upper()}[/]: ", end="")
    _say(f"{details['candidate']} in {details['runtime']}{against}")


def _say(text: str) -> None:
    _console.out.print(text, markup=False, highlight=False, soft_wrap=True)


def exit_code(artifact: Artifact) -> int:
    """For CI: what the verdict means."""
    return CODES[artifact.manifest.details["verdict"]]


def next_command(done: Done) -> str:
    """More data where that decides, else a look at what was measured."""
    from optkit.core.types import Format
    from optkit.pipeline import format_of

    details = done.artifact.manifest.details
    measured = shlex.split(done.models)
    is_bench = len(measured) == 1 and format_of(measured[0]) is Format.RESULT
    named = details["models"]
    judged = [named.get(one, one) for one in (details["baseline"], details["candidate"]) if one]
    again = f"optkit bench {shlex.join(judged) if is_bench else done.models}"
    options = _options(details["bench_options"])
    if needs := [one["needs"] for one in details["criteria"] if one["needs"]]:
        more = max(need.get("seconds", 0) for need in needs)
        seconds = math.ceil(details["seconds_timed"] + more) if more else details["seconds_timed"]
        data = " --data MORE_PHOTOS" if any("images" in need for need in needs) else done.data
        return f"{again}{data}{options} --seconds {seconds:g}"
    return f"optkit report {done.models}" if is_bench else f"{again}{done.data}{options}"


def _options(values: dict[str, Any]) -> str:
    """` --runtimes openvino --threads 1`."""
    words = {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(text)}" for name, text in words.items())


def junit(artifact: Artifact) -> str:
    """The verdicts as tests."""
    from optkit.report.junit import junit as to_xml

    return to_xml([artifact.manifest])


command = StageCommand(
    "gate",
    HELP,
    show,
    to_json,
    next_command,
    positional=("models",),
    hidden=("bench",),
    expand=expand,
    exit_code=exit_code,
    also="bench",
    files=(File("junit", "Write the verdicts as JUnit XML for CI, to this file.", junit),),
)
