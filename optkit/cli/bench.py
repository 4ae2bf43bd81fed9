"""`optkit bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optkit.cli import _console
from optkit.cli._run import Done, StageCommand
from optkit.core.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from optkit.core.types import Artifact

HELP = """Measure models side by side: latency, throughput, memory, accuracy of the file itself, MACs, bytes.

Models are artifact folders, .onnx files, checkpoints or engines, one or several; the first is the baseline.
Each lives in a process of its own. They are timed in turns, and compared round by round: a verdict is given where
the interval of the latency ratio excludes 1.

The result is kept with its raw samples: `optkit gate` judges it, `optkit report` draws it. Ctrl-C keeps what was
measured until then. Exit code 1: a process crashed; the other models are still reported.

[bold]Examples[/]

    optkit bench engine.plan

    optkit bench onnx/ int8/ --data photos/

    optkit bench model.onnx --runtimes onnxruntime,openvino:latency,openvino:throughput --loads offline

    optkit bench ft/ --runtimes pytorch:eager,pytorch:channels_last,pytorch:compiled --batch-sizes 1,8

    optkit bench model.onnx --loads offline,server --latency-bound-ms 50

    optkit bench onnx/ int8/ --layers
"""

SHOWN_GAPS, SHOWN_PERCENTILES = ("latency_ms", "top1", "macs"), ("p50", "p90", "p99")  # others: in the report


def to_json(artifact: Artifact) -> dict[str, Any]:
    """What the manifest holds, without the raw samples."""
    details = artifact.manifest.details
    return {**details, "warnings": list(artifact.manifest.warnings)}


def _ms(value: float | None) -> str:
    """Three or four digits."""
    return "–" if value is None else f"{value:.{1 if value >= 10 else 2 if value >= 0.1 else 4}f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def show(artifact: Artifact) -> None:
    """What each takes; how it compares; loads, layers, and reasons for what is missing."""
    details = artifact.manifest.details
    columns = ["model", "runtime ×batch", "p50 ms", "95 %", "p90", "p99", "img/s", "RSS MB", "MB"]
    title = "bench: INTERRUPTED, partial results" if details["interrupted"] else "bench"
    _console.table(title, columns, [_times(row) for row in details["rows"]])
    _show_comparisons(details)
    for line in [
        *_parts(details),
        *_loads(details),
        *_layers(details),
        *_reasons(details),
    ]:
        _console.out.print(line, markup=False, highlight=False)


def _show_comparisons(details: dict[str, Any]) -> None:
    """Latency ratios with their intervals and verdicts; changes of accuracy, where a loss is negative."""
    for first, rows in _by_reference(details).items():
        table = [
            [
                row["name"],
                f"{row['runtime']} ×{row['batch']}",
                f"{row['ratio']:.3f}× ({row['interval'][0]:.3f}–{row['interval'][1]:.3f})",
                row["verdict"],
            ]
            for row in rows
        ]
        columns = ["model", "runtime ×batch", f"latency ({100 * rows[0]['confidence']:g} %)", "verdict"]
        _console.table(f"latency against {first[0]} in {first[1]}", columns, table)
    measured = {(row["name"], row["runtime"]): row for row in details["rows"] if row["top1"] is not None}
    if measured:
        columns = ["model", "runtime", "top-1 (95 %)", "Δ points (95 %)", "same answer"]
        _console.table("accuracy", columns, [_accuracy(row) for row in measured.values()])


def _by_reference(details: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in details["comparisons"]:
        found.setdefault((row["reference"]["name"], row["reference"]["runtime"]), []).append(row)
    return found


def _times(row: dict[str, Any]) -> list[str]:
    known, peak = row["latency_ms"] or {}, (row["memory"] or {}).get("peak_rss_bytes")
    low, high = row["latency_intervals"].get("p50", (None, None))
    return [
        f"{row['name']} ({row['precision']})",
        f"{row['runtime']} ×{row['batch']}",
        _ms(known.get("p50")),
        "–" if low is None else f"{_ms(low)}–{_ms(high)}",
        _ms(known.get("p90")),
        _ms(known.get("p99")),
        _number(row["throughput"], ".0f"),
        _number(peak and peak / 1e6, ".0f"),
        _number(row["size_bytes"] / 1e6, ".1f"),
    ]


def _accuracy(row: dict[str, Any]) -> list[str]:
    drop, (low, high) = row["top1_drop"], row["top1_interval"]
    change = "–"
    if drop:
        most, least = (-100 * bound for bound in drop["interval"])
        change = f"{-100 * drop['drop']:+.1f} ({least:+.1f} to {most:+.1f})"
    top1 = f"{row['top1']:.3f} ({low:.3f}–{high:.3f})"
    return [row["name"], row["runtime"], top1, change, _number(row["agreement"], ".3f")]


def _parts(details: dict[str, Any]) -> list[str]:
    """Medians by the device's own clock: copy in, computation, copy out."""
    lines = []
    for row in details["rows"]:
        for part in row["parts"]:
            times = ", ".join(
                f"{name.removesuffix('_ms')} {ms:.3f} ms" for name, ms in part.items() if name.endswith("_ms")
            )
            how = part.get("like") or f"CUDA graph {'on' if part['cuda_graph'] else 'off'}"
            lines.append(f"on the GPU: {row['name']}, batch {row['batch']}: {times} ({how})")
    return lines


def _loads(details: dict[str, Any]) -> list[str]:
    lines = []
    for row in details["rows"]:
        where = f"{row['name']} in {row['runtime']}, batch {row['batch']}"
        if offline := row["offline"]:
            low, high = offline["interval"]
            lines.append(
                f"offline: {where}: {offline['images_per_s']:.0f} images/s (95 %: {low:.0f}–{high:.0f}) "
                f"with {offline['streams']} at once"
            )
        if server := row["server"]:
            lines.append(
                f"server: {where}: {server['queries_per_s']:.0f} requests/s with p99 within {server['bound_ms']:g} ms"
            )
        elif "server" in row["not_measured"]:
            lines.append(f"server: {where}: {row['not_measured']['server']}")
    return lines


def _layers(details: dict[str, Any]) -> list[str]:
    """The three dearest layers of each model."""
    lines = []
    for found in details["layers"]:
        dearest = sorted(found["layers"], key=lambda layer: -layer["ms"])[:3]
        texts = [f"{layer['name']} {100 * layer['share']:.0f} %" for layer in dearest]
        lines.append(f"dearest layers of {found['name']} in {found['runtime']}: {', '.join(texts)}")
    return lines


def _reasons(details: dict[str, Any]) -> list[str]:
    """Each once, with the models that it holds for, unless it holds for all."""
    found: dict[str, dict[str, None]] = {}
    for row in details["rows"]:
        gaps = [row["not_measured"][name] for name in SHOWN_GAPS if name in row["not_measured"]]
        refused = [f"{name} {why}" for name, why in row["refused"].items() if name in SHOWN_PERCENTILES]
        for text in gaps + refused:
            found.setdefault(text, {})[row["name"]] = None
    models = len({row["name"] for row in details["rows"]})
    return [text if len(of) == models > 1 else f"{', '.join(of)}: {text}" for text, of in found.items()]


def exit_code(artifact: Artifact) -> int:
    """Whether the processes of all models lived to the end."""
    return EXIT_FAILED if artifact.manifest.details.get("failed") else EXIT_OK


def next_command(done: Done) -> str:
    """Draw it."""
    return f"optkit report {done.where}"


command = StageCommand(
    "bench", HELP, show, to_json, next_command, positional=("models",), exit_code=exit_code, keeps=True
)
