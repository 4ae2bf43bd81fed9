"""The Pareto plots as plotly.js data. Colours of text and grid come from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from optkit.report import text
from optkit.report.labels import label_places
from optkit.report.schema import Row

Figure = dict[str, Any]
# Readable on white and on near-black; precisions differ in hue, runtimes in shape.
COLOURS = {"fp32": "#3b82f6", "fp16": "#059669", "bf16": "#0891b2", "int8": "#ea580c", "fp8": "#db2777"}
OTHER_COLOUR = "#a855f7"
NEUTRAL = "#8a94a6"
PALETTE = (*COLOURS.values(), OTHER_COLOUR)  # where every curve has its own
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
MARGIN = 0.16  # of the axis, for the names beside the outermost points
LOG_RANGE = 10  # a wider span of latencies is drawn on a logarithmic axis


@dataclass(frozen=True)
class Plot:
    """A figure with its heading and what it shows in words."""

    id: str
    title: str
    alt: str
    figure: Figure


def pareto_plots(
    all_rows: Sequence[Row], baseline: str | None = None, runs: dict[str, str] | None = None
) -> list[Plot]:
    """Accuracy against latency, one plot per batch size: latencies of different batches do not compare.

    Precisions differ in hue, or, where `runs` tells the run of each row's name, the runs do.
    """
    timed = [row for row in all_rows if row.computes and row.p50 is not None and row.top1 is not None]
    plots = []
    for batch in sorted({row.batch or 0 for row in timed}):
        rows = sorted((row for row in timed if (row.batch or 0) == batch), key=lambda row: row.p50 or 0)
        alt = "; ".join(
            f"{row.name} in {row.runtime}: {text.figure(row.p50 or 0)} ms, {text.percent(row.top1 or 0)}"
            f"{' (baseline)' if row.name == baseline else ''}{' (on the Pareto front)' if row.on_front else ''}"
            for row in rows
        )
        title = f"Accuracy against latency, batch {batch}"
        plots.append(
            Plot(f"pareto-{batch}", title, f"{title}. {alt}.", _pareto_figure(rows, baseline, runs or {}))
        )
    return plots


def _pareto_figure(rows: list[Row], baseline: str | None, runs: dict[str, str]) -> Figure:
    symbols = dict(zip(dict.fromkeys(row.runtime for row in rows), SYMBOLS * len(rows), strict=False))
    first = [row for row in rows if row.name == baseline]
    hues = dict(zip(dict.fromkeys(runs.values()), PALETTE * len(runs), strict=False))
    traces = [_front_trace(front, runs, hues) for front in _fronts(rows) if len(front) > 1]
    traces += [_ring_trace(first)] if first and len(rows) > 1 else []
    x_axis = latency_axis([row.p50 or 0 for row in rows], "p50 latency, ms per batch")
    places = dict(
        zip(map(id, rows), label_places(rows, x_axis["range"], x_axis["type"] == "log"), strict=True)
    )
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((runs.get(row.name, ""), row.runtime, row.precision), []).append(row)
    for (run, runtime, precision), group in groups.items():
        colour = hues.get(run) or COLOURS.get(precision, OTHER_COLOUR)
        name = f"{run}: " * bool(run) + f"{precision.upper()} in {runtime}"
        traces.append(
            _points_trace(name, group, colour, symbols[runtime], [places[id(row)] for row in group])
        )
    return {
        "data": traces,
        "layout": {
            "xaxis": x_axis,
            "yaxis": {"title": {"text": "top-1"}, "ticksuffix": " %"},
            "height": 460,
            "margin": {"l": 70, "r": 24, "t": 16, "b": 96},
            "legend": {"orientation": "h", "y": -0.2, "x": 0},
            "hovermode": "closest",
        },
    }


def latency_axis(latencies: list[float], words: str) -> Figure:
    """A plotly axis with room on both sides; logarithmic where the latencies span more than LOG_RANGE."""
    low, high = min(latencies), max(latencies)
    axis: Figure = {"title": {"text": words}, "type": "linear"}
    if low <= 0 or high <= LOG_RANGE * low:
        room = MARGIN * (high - low) or 0.2 * high
        return {**axis, "range": [max(0.0, low - room), high + room]}
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    room = MARGIN * math.log10(high / low)
    digits = (1, 2, 5) if len(decades) < 6 else (1,)
    return {
        **axis,
        "type": "log",
        "range": [math.log10(low) - room, math.log10(high) + room],
        "tickvals": [digit * 10.0**decade for decade in decades for digit in digits],
    }


def _fronts(rows: list[Row]) -> list[list[Row]]:
    """One for the rows of each group, which were measured under the same conditions."""
    groups = sorted({row.group for row in rows})
    return [[row for row in rows if row.on_front and row.group == group] for group in groups]


def _front_trace(front: list[Row], runs: dict[str, str], hues: dict[str, str]) -> Figure:
    """A step: between two points of the front, the faster one's accuracy is what can be had."""
    names = list(dict.fromkeys(runs[row.name] for row in front if row.name in runs))
    colour = hues[names[0]] if len(names) == 1 else NEUTRAL
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape("Pareto front" + (f" of {names_of}" if (names_of := ", ".join(names)) else "")),
        "x": [row.p50 for row in front],
        "y": [100 * (row.top1 or 0) for row in front],
        "line": {"shape": "hv", "width": 2, "dash": "dot", "color": colour},
        "hoverinfo": "skip",
    }


def _ring_trace(rows: list[Row]) -> Figure:
    """A ring around every point of the baseline."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "baseline",
        "x": [row.p50 for row in rows],
        "y": [100 * (row.top1 or 0) for row in rows],
        "marker": {"symbol": "circle-open", "size": 24, "color": NEUTRAL, "line": {"width": 2.5}},
        "hoverinfo": "skip",
    }


def _points_trace(name: str, rows: list[Row], colour: str, symbol: str, places: list[str]) -> Figure:
    # plotly.js reads a little HTML in names, so what comes from outside is escaped.
    intervals = [row.top1_interval or (row.top1 or 0, row.top1 or 0) for row in rows]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": escape(name),
        "x": [row.p50 for row in rows],
        "y": [100 * (row.top1 or 0) for row in rows],
        "text": [escape(row.name) for row in rows],
        "textposition": places,
        "cliponaxis": False,
        "customdata": [[_hover(row)] for row in rows],
        "hovertemplate": "%{customdata[0]}<extra></extra>",
        "marker": {"color": colour, "symbol": symbol, "size": 12},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [100 * (high - (row.top1 or 0)) for row, (_, high) in zip(rows, intervals, strict=True)],
            "arrayminus": [
                100 * ((row.top1 or 0) - low) for row, (low, _) in zip(rows, intervals, strict=True)
            ],
            "thickness": 1.2,
            "width": 4,
            "color": colour,
        },
    }


def _hover(row: Row) -> str:
    lines = [
        f"<b>{escape(row.name)}</b>",
        escape(f"{row.precision.upper()} {row.format} in {row.runtime}, batch {row.batch}"),
        f"p50 {text.figure(row.p50 or 0)} ms",
        f"top-1 {text.percent(row.top1 or 0)}"
        + (f" ({text.interval(row.top1_interval)})" if row.top1_interval else ""),
    ]
    delta = row.against_baseline
    if delta and delta.speedup:
        lines.append(escape(f"{text.speed_change(delta)}, {text.runtimes(delta)}"))
    lines += [text.size(row.size_bytes)] if row.size_bytes else []
    return "<br>".join(lines)
