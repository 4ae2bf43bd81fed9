"""The recovery ladder of a quantised model as plotly.js data: a waterfall from the first rung down.

The bars are the SQNR on held-out calibration images, which decides what is kept; below the bar of a kept rung a
diamond is that on validation images, which is what the budget's line is to be compared with.
"""

from __future__ import annotations

from html import escape
from textwrap import shorten, wrap

from optkit.report import text
from optkit.report.curves import border, note
from optkit.report.plots import COLOURS, NEUTRAL, OTHER_COLOUR, Figure, Plot
from optkit.report.quantisation_schema import Quantized, Rung
from optkit.report.quantisation_text import judged_on, level_db, loss_in_points
from optkit.report.schema import Report

ROW = 46  # pixels a rung takes
TOP, BOTTOM = 36, 112  # pixels above and below the rungs
CHECKED = "#059669"  # what was measured on validation images, and the limit for it
BELOW = 0.36  # of a rung: how far its figure on validation images is below the one on held-out images
NAME_LENGTH = 22  # characters of a rung's name beside the plot; the table below has all of it
LINE_LENGTH = 46  # characters in a line of what hovering shows
MARGIN = 0.08  # of the axis, beside the outermost marks


def ladder_plots(report: Report) -> dict[str, Plot]:
    """By step: the ladder of every quantised model of which more than one rung was measured."""
    plots = {}
    for index, found in enumerate(report.quantized):
        if sum(rung.sqnr_db is not None for rung in found.ladder) > 1:
            title = "Recovery ladder"
            plots[found.step] = Plot(f"ladder-{index}", title, _alt(found), _figure(found))
    return plots


def _alt(found: Quantized) -> str:
    rungs = "; ".join(f"{rung.rung}: {_in_words(rung)}" for rung in found.ladder)
    images = judged_on(found)
    return f"Recovery ladder of {found.step}, SQNR of the logits after each rung on {images}. {rungs}."


def _in_words(rung: Rung) -> str:
    """`24.3 dB (+3.1 dB), kept`."""
    gain = "" if rung.gain_db is None else f" ({text.decibel_change(rung.gain_db)})"
    reached = "not measured" if rung.sqnr_db is None else f"{text.decibels(rung.sqnr_db)}{gain}"
    level = _checked_db(rung)
    checked = "" if level is None else f", {text.decibels(level)} on validation images"
    return f"{reached}, {'kept' if rung.kept else 'discarded'}{checked}"


def _checked_db(rung: Rung) -> float | None:
    return rung.validation.sqnr_db if rung.validation else None


def _figure(found: Quantized) -> Figure:
    colour = COLOURS.get(found.precision, OTHER_COLOUR)
    places = range(len(found.ladder))
    notes = [value for place, rung in enumerate(found.ladder) for value in _values(rung, place)]
    budget = found.budget.min_sqnr if found.budget else None
    if budget is not None:
        notes.append(note(f"asked for: {text.decibels(budget)}", budget, "center") | _font(CHECKED))
    return {
        "data": [
            _level_trace(found.ladder),
            *_rung_traces(found, True, colour),
            *_rung_traces(found, False, NEUTRAL),
            *_checked_traces(found),
        ],
        "layout": {
            "xaxis": {
                "title": {"text": "SQNR of the logits, dB", "standoff": 4},
                "range": _range(found.ladder, budget),
                "zeroline": False,
            },
            "yaxis": {
                "tickvals": list(places),
                "ticktext": [escape(shorten(r.rung, NAME_LENGTH, placeholder="…")) for r in found.ladder],
                "range": [len(found.ladder) - 0.5, -0.5],
                "showgrid": False,
                "zeroline": False,
            },
            "height": ROW * len(found.ladder) + TOP + BOTTOM,
            "margin": {"l": 24, "r": 64, "t": TOP, "b": BOTTOM},
            "legend": {"orientation": "h", "y": -60 / (ROW * len(found.ladder)), "yanchor": "top", "x": 0},
            "barmode": "overlay",
            "hovermode": "closest",
            "annotations": notes,
            "shapes": [] if budget is None else [border(budget, CHECKED)],
        },
    }


def _range(ladder: tuple[Rung, ...], budget: float | None) -> list[float]:
    levels = [level for rung in ladder for level in (rung.sqnr_db, _checked_db(rung))]
    shown = [value for value in (budget, *levels) if value is not None]
    room = MARGIN * (max(shown) - min(shown)) or 1.0
    return [min(shown) - room, max(shown) + room]


def _level_trace(ladder: tuple[Rung, ...]) -> Figure:
    """From each kept rung straight down to the next one: what the rungs between them start from."""
    kept = [(place, r.sqnr_db) for place, r in enumerate(ladder) if r.kept and r.sqnr_db is not None]
    ends = [place for place, _ in kept[1:]] + [len(ladder) - 0.5]
    lines = list(zip(kept, ends, strict=False))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for (_, level), _ in lines for x in (level, level, None)],
        "y": [y for (place, _), end in lines for y in (place, end, None)],
        "line": {"width": 1.5, "dash": "dot", "color": NEUTRAL},
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _rung_traces(found: Quantized, kept: bool, colour: str) -> list[Figure]:
    """What the kept, or the discarded, rungs changed as bars from where they started, with a mark at the end."""
    rungs = [
        (p, rung) for p, rung in enumerate(found.ladder) if rung.kept == kept and rung.sqnr_db is not None
    ]
    if not rungs:
        return []
    name = "kept" if kept else "discarded"
    hollow = "rgba(0,0,0,0)"
    common = {
        "legendgroup": name,
        "y": [place for place, _ in rungs],
        "customdata": [[_hover(rung, judged_on(found))] for _, rung in rungs],
        "hovertemplate": "%{customdata[0]}<extra></extra>",
    }
    bars = {
        **common,
        "type": "bar",
        "orientation": "h",
        "width": 0.5,
        "base": [rung.sqnr_db if rung.before_db is None else rung.before_db for _, rung in rungs],
        "x": [rung.gain_db or 0.0 for _, rung in rungs],
        "marker": {"color": colour if kept else hollow, "line": {"color": colour, "width": 1.5}},
        "showlegend": False,
    }
    marks = {
        **common,
        "type": "scatter",
        "mode": "markers",
        "name": f"{judged_on(found)}, {name}",
        "x": [rung.sqnr_db for _, rung in rungs],
        "marker": {
            "symbol": "circle" if kept else "circle-open",
            "color": colour,
            "size": 12,
            "line": {"width": 2, "color": colour},
        },
        "cliponaxis": False,
    }
    return [bars, marks]


def _checked_traces(found: Quantized) -> list[Figure]:
    """Marks where the kept rungs are on validation images."""
    rungs = [(place, rung) for place, rung in enumerate(found.ladder) if _checked_db(rung) is not None]
    if not rungs:
        return []
    marks = {
        "type": "scatter",
        "mode": "markers",
        "name": "validation images",
        "x": [_checked_db(rung) for _, rung in rungs],
        "y": [place + BELOW for place, _ in rungs],
        "customdata": [[_hover(rung, judged_on(found))] for _, rung in rungs],
        "hovertemplate": "%{customdata[0]}<extra></extra>",
        "marker": {"symbol": "diamond", "color": CHECKED, "size": 10},
        "cliponaxis": False,
    }
    return [marks]


def _hover(rung: Rung, images: str) -> str:
    lines = [f"<b>{escape(rung.rung)}</b>", _in_words(rung)]
    if rung.agreement is not None:
        lines.append(f"agreement {text.percent(rung.agreement)} on {images}")
    if rung.validation and rung.validation.agreement is not None:
        lines.append(f"agreement {text.percent(rung.validation.agreement)} on validation images")
    if rung.validation and rung.validation.drop is not None:
        lines.append(f"top-1 {loss_in_points(rung.validation.drop)} points on validation images")
    if rung.seconds is not None:
        lines.append(text.duration(rung.seconds))
    return "<br>".join([*lines, *map(escape, wrap(rung.note, LINE_LENGTH))])


def _values(rung: Rung, place: int) -> list[Figure]:
    """What a rung reached, in a column right of the plot, where nothing is in its way."""
    words = "–" if rung.sqnr_db is None else level_db(rung.sqnr_db)
    values = [_beside(f"<b>{words}</b>" if rung.kept else words, place)]
    level = _checked_db(rung)
    return values if level is None else [*values, _beside(level_db(level), place + BELOW) | _font(CHECKED)]


def _font(colour: str) -> Figure:
    return {"font": {"color": colour}}


def _beside(words: str, y: float) -> Figure:
    return {
        "text": words,
        "x": 1,
        "y": y,
        "xref": "paper",
        "yref": "y",
        "xanchor": "left",
        "xshift": 12,
        "showarrow": False,
    }
