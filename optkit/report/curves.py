"""Curves of a training as plotly.js data: loss, accuracy, learning rate, and the learning-rate finder."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from optkit.report import text
from optkit.report.numbers import is_number
from optkit.report.plots import NEUTRAL, Figure, Plot
from optkit.report.schema import Report

TRAINING, VALIDATION, RATE = "#3b82f6", "#ea580c", "#059669"
# field of a history row: (panel, words, colour, dash)
CURVES = {
    "loss": ("loss", "training loss", TRAINING, "solid"),
    "val_loss": ("loss", "validation loss", VALIDATION, "solid"),
    "train_top1": ("top-1", "training top-1", TRAINING, "solid"),
    "val_top1": ("top-1", "validation top-1", VALIDATION, "solid"),
    "lr": ("learning rate", "learning rate", RATE, "dot"),
}
PANELS = {"loss": 160, "top-1": 160, "learning rate": 70}  # their heights in pixels, from the top down
GAP, TOP, BOTTOM = 26, 28, 84  # pixels between the panels, above and below them
PHASE_NAMES = 6  # beyond this many phases only their borders are drawn
Row = dict[str, Any]


def training_plots(report: Report) -> list[Plot]:
    """The course of every step that trained, and of its search for a learning rate."""
    plots = []
    for index, step in enumerate(report.steps):
        title = f"{step.name} ({step.manifest.stage})"
        history = [row for row in step.manifest.history if any(is_number(row.get(name)) for name in CURVES)]
        if history:
            alt = _training_alt(title, history)
            plots.append(Plot(f"training-{index}", title, alt, _training_figure(history)))
        if points := _finder_points(step.manifest.details.get("lr_finder")):
            plots.append(_finder_plot(f"lr-finder-{index}", step.name, *points))
    return plots


def _training_alt(title: str, history: list[Row]) -> str:
    parts = []
    for name, (panel, words, _, _) in CURVES.items():
        values = [row[name] for row in history if is_number(row.get(name))]
        if values:
            ends = [_in_words(panel, value) for value in (values[0], values[-1])]
            parts.append(f"{words} from {ends[0]} to {ends[1]}")
    return f"Training of {title}, {len(history)} epochs: {', '.join(parts)}."


def _in_words(panel: str, value: float) -> str:
    if panel == "top-1":
        return text.percent(value)
    return text.figure(value) if panel == "loss" else f"{value:.2g}"


def _training_figure(history: list[Row]) -> Figure:
    """The panels that have a curve, one below the other, over the epochs of all phases."""
    shown = {name: curve[0] for name, curve in CURVES.items() if any(is_number(r.get(name)) for r in history)}
    panels = [panel for panel in PANELS if panel in shown.values()]
    axes = {panel: f"y{place + 1 if place else ''}" for place, panel in enumerate(panels)}
    traces: list[Figure] = []
    for name, panel in shown.items():
        traces.append(_curve(name, history, axes[panel]))
        traces[-1]["showlegend"] = [trace["name"] for trace in traces].count(traces[-1]["name"]) == 1
    drawn = sum(PANELS[panel] for panel in panels) + GAP * (len(panels) - 1)
    layout: Figure = {
        "xaxis": {
            "title": {"text": "epoch", "standoff": 4},
            "anchor": list(axes.values())[-1],
            "tickformat": "d",
            "range": [0.5, len(history) + 0.5],
        },
        "height": drawn + TOP + BOTTOM,
        "margin": {"l": 62, "r": 16, "t": TOP, "b": BOTTOM},
        "legend": {"orientation": "h", "y": -56 / drawn, "yanchor": "top", "x": 0},
        "hovermode": "x unified",
        "hoversubplots": "axis",
        **_phases(history),
    }
    bottom = drawn
    for panel, axis in axes.items():
        domain = [max(0.0, (bottom - PANELS[panel]) / drawn), bottom / drawn]
        layout[axis.replace("y", "yaxis")] = {**_y_axis(panel, history), "domain": domain}
        bottom -= PANELS[panel] + GAP
    return {"data": traces, "layout": layout}


def _y_axis(panel: str, history: list[Row]) -> Figure:
    if panel == "top-1":
        return {"title": {"text": "top-1"}, "ticksuffix": " %"}
    if panel == "loss":
        return {"title": {"text": "loss"}, "rangemode": "tozero"}
    rates = [row["lr"] for row in history if is_number(row.get("lr"))]
    wide = min(rates) > 0 and max(rates) > 20 * min(rates)
    # The panel is low: about three powers of ten fit on its axis.
    step = math.ceil(math.log10(max(rates) / min(rates)) / 3) if wide else 0
    scale = {"type": "log", "dtick": step} if wide else {"rangemode": "tozero", "nticks": 4}
    return {"title": {"text": "rate"}, "exponentformat": "power" if wide else "e", **scale}


def _curve(name: str, history: list[Row], axis: str) -> Figure:
    """One of CURVES as a trace; the two of a colour share one entry of the legend."""
    panel, words, colour, dash = CURVES[name]
    scale = 100 if panel == "top-1" else 1
    number = "%{y:.1f} %" if panel == "top-1" else "%{y:.4g}"
    return {
        "type": "scatter",
        "mode": "lines" if panel == "learning rate" else "lines+markers",
        "name": words.split()[0] if panel != "learning rate" else words,
        "legendgroup": colour,
        "x": list(range(1, len(history) + 1)),  # over all phases: `epoch` may start again in each
        "y": [scale * row[name] if is_number(row.get(name)) else None for row in history],
        "yaxis": axis,
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"size": 5},
        "connectgaps": True,
        "hovertemplate": f"{number}<extra>{words}</extra>",
    }


def _phases(history: list[Row]) -> Figure:
    """A dotted line where a phase begins, and its name above."""
    starts = [
        index
        for index, row in enumerate(history)
        if row.get("phase") and (not index or row["phase"] != history[index - 1].get("phase"))
    ]
    lines = [border(index + 0.5, NEUTRAL) for index in starts if index]
    names = [note(str(history[index]["phase"]), index + 0.5, "left") for index in starts]
    return {"shapes": lines, "annotations": names if len(names) <= PHASE_NAMES else []}


def border(x: float, colour: str) -> Figure:
    """A dotted line from the bottom of the figure to its top."""
    line = {"color": colour, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "xref": "x", "yref": "paper", "line": line}


def note(words: str, x: float, anchor: str) -> Figure:
    """Words above the plot, at `x` of its axis."""
    return {
        "text": escape(words),  # plotly.js reads a little HTML
        "x": x,
        "y": 1,
        "xref": "x",
        "yref": "paper",
        "xanchor": anchor,
        "yanchor": "bottom",
        "showarrow": False,
    }


def _finder_points(found: Any) -> tuple[list[float], list[float], float | None] | None:
    """Rates, losses and the suggested rate of a learning-rate finder; None where it has no curve."""
    found = found if isinstance(found, dict) else {}
    rates, losses = found.get("lr"), found.get("loss")
    if not isinstance(rates, list) or not isinstance(losses, list):
        return None
    pairs = zip(rates, losses, strict=False)
    points = [(lr, loss) for lr, loss in pairs if is_number(lr) and is_number(loss) and lr > 0]
    if len(points) < 2:
        return None
    rate = found.get("suggestion")
    return (
        [lr for lr, _ in points],
        [loss for _, loss in points],
        rate if is_number(rate) and rate > 0 else None,
    )


def _finder_plot(id: str, name: str, rates: list[float], losses: list[float], rate: float | None) -> Plot:
    """The loss against the rate; the end, where the training diverges, runs out of the picture."""
    low, first = min(losses), losses[0]
    ceiling = max(first, low) + 0.6 * (first - low or abs(low) or 1.0)
    chosen = f"suggested: {rate:.2g}" if rate else "no rate suggested"
    shapes = [border(rate, RATE)] if rate else []
    notes = [note(chosen, math.log10(rate), "center")] if rate else []
    figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "loss",
                "x": rates,
                "y": losses,
                "line": {"color": TRAINING, "width": 2},
                "hovertemplate": "rate %{x:.2g}<br>loss %{y:.4g}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {
                "title": {"text": "learning rate", "standoff": 4},
                "type": "log",
                "exponentformat": "power",
                "dtick": 1,
            },
            "yaxis": {
                "title": {"text": "loss"},
                "range": [low - 0.1 * (ceiling - low), min(ceiling, max(losses))],
            },
            "height": 300,
            "margin": {"l": 62, "r": 16, "t": TOP, "b": 56},
            "hovermode": "closest",
            "shapes": shapes,
            "annotations": notes,
        },
    }
    alt = f"Learning-rate finder of {name}: loss over rates from {rates[0]:.2g} to {rates[-1]:.2g}; {chosen}."
    return Plot(id, f"{name}: learning-rate finder", alt, figure)
