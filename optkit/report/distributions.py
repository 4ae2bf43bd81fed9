"""How latencies are spread, how they went from round to round, and what the machine did meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from optkit.report import text
from optkit.report.bench_schema import Bench, Distribution, Trace
from optkit.report.plots import PALETTE, Figure, Plot, latency_axis

Points = list[tuple[float, float]]
DASHES = ("solid", "dot", "dash", "dashdot")  # beyond as many curves as there are colours
LAYOUT = {
    "height": 380,
    "margin": {"l": 62, "r": 16, "t": 16, "b": 90},
    "legend": {"orientation": "h", "y": -0.24, "x": 0},
}
PANEL, GAP, TOP, BOTTOM = 110, 26, 12, 50  # of a trace, in pixels
WORDS = {
    "mhz": "clock, MHz",
    "celsius": "°C",
    "load": "load",
    "runnable": "runnable tasks",
    "others_percent": "other work, %",
    "steal_percent": "stolen, %",
    "gpu_mhz": "GPU clock, MHz",
    "gpu_celsius": "GPU, °C",
    "gpu_watts": "GPU, W",
}


def distribution_plots(benches: Sequence[Bench]) -> list[Plot]:
    """By bench and batch: the share of calls within a time, and the medians of the rounds."""
    plots = []
    for index, bench in enumerate(benches):
        for batch in sorted({found.batch for found in bench.distributions}):
            group = [found for found in bench.distributions if found.batch == batch]
            where = f"batch {batch}" + (f", {bench.step}" if len(benches) > 1 else "")
            plots.append(_spread(f"latencies-{index}-{batch}", where, group))
            if any(len(found.rounds) > 1 for found in group):
                plots.append(_course(f"rounds-{index}-{batch}", where, group))
        if bench.trace:
            plots += _trace_plots(f"trace-{index}", bench.step, bench.trace)
    return plots


def _spread(id: str, where: str, group: list[Distribution]) -> Plot:
    axis = latency_axis([ms for found in group for ms, share in found.ecdf if share], "ms per batch")
    figure = {
        "data": [_curve(place, found, *_columns(found)) for place, found in enumerate(group)],
        "layout": {
            **LAYOUT,
            "xaxis": axis,
            "yaxis": {"title": {"text": "calls within"}, "ticksuffix": " %", "range": [0, 101]},
            "hovermode": "closest",
        },
    }
    title = f"Latency of single calls, {where}"
    return Plot(id, title, f"{title}: {'; '.join(_spread_words(found) for found in group)}.", figure)


def _columns(found: Distribution) -> tuple[list[float], list[float], str]:
    hover = "%{y:.4g} % of the calls within %{x:.4g} ms"
    return [ms for ms, _ in found.ecdf], [100 * share for _, share in found.ecdf], hover


def _spread_words(found: Distribution) -> str:
    low, half, high = found.ecdf[0][0], _within(found, 0.5), found.ecdf[-1][0]
    words = f"{text.figure(low)} to {text.figure(high)} ms, half of them within {text.figure(half)} ms"
    return f"{_name(found)}: {found.calls} calls, {words}"


def _within(found: Distribution, share: float) -> float:
    return next(ms for ms, reached in found.ecdf if reached >= share)


def _name(found: Distribution) -> str:
    return f"{found.name} in {found.runtime}"


def _curve(place: int, found: Distribution, xs: list[float], ys: list[float], hover: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(_name(found)),
        "x": xs,
        "y": ys,
        "line": {
            "color": PALETTE[place % len(PALETTE)],
            "dash": DASHES[place // len(PALETTE) % len(DASHES)],
            "width": 2,
        },
        "hovertemplate": f"{hover}<extra>{escape(found.name)}</extra>",
    }


def _course(id: str, where: str, group: list[Distribution]) -> Plot:
    drawn = [found for found in group if len(found.rounds) > 1]
    curves = []
    for place, found in enumerate(group):
        if found in drawn:
            xs = [float(1 + found.rounds_each * index) for index in range(len(found.rounds))]
            curves.append(_curve(place, found, xs, list(found.rounds), "round %{x}: median %{y:.4g} ms"))
    axis = latency_axis([ms for found in drawn for ms in found.rounds], "median, ms per batch")
    layout = {
        **LAYOUT,
        "xaxis": {"title": {"text": "round"}, "tickformat": "d"},
        "yaxis": axis,
        "hovermode": "closest",
    }
    title = f"Round by round, {where}"
    words = "; ".join(
        f"{_name(found)}: medians of {text.figure(min(found.rounds))} to {text.figure(max(found.rounds))} ms"
        for found in drawn
    )
    return Plot(id, title, f"{title}: {words}.", {"data": curves, "layout": layout})


def _trace_plots(id: str, step: str, trace: Trace) -> list[Plot]:
    """A panel for every column that changed."""
    curves: dict[str, Points] = {
        name: points for name, points in _columns_of(trace) if len(_levels(points)) > 1
    }
    if not curves:
        return []
    title = f"The machine while {step} ran"
    parts = [
        f"{_column(name)} from {text.figure(min(_levels(points)))} to {text.figure(max(_levels(points)))}"
        for name, points in curves.items()
    ]
    figure = {
        "data": [_panel_curve(panel, name, points) for panel, (name, points) in enumerate(curves.items())],
        "layout": _panels(list(curves)),
    }
    return [Plot(id, title, f"{title}: {', '.join(parts)}.", figure)]


def _columns_of(trace: Trace) -> Iterator[tuple[str, Points]]:
    """Every column but the seconds, as (second, value)."""
    if "seconds" not in trace.columns:
        return
    times = trace.columns.index("seconds")
    rows = [row for row in trace.rows if len(row) == len(trace.columns)]
    for place, name in enumerate(trace.columns):
        if place != times:
            known = ((row[times], row[place]) for row in rows)
            yield (
                name,
                [(second, value) for second, value in known if second is not None and value is not None],
            )


def _levels(points: Points) -> set[float]:
    return {value for _, value in points}


def constants(benches: Sequence[Bench]) -> list[str]:
    """`cgroup throttles 0`: what did not change while a bench ran, and is not drawn."""
    columns = [column for bench in benches if bench.trace for column in _columns_of(bench.trace)]
    return list(
        dict.fromkeys(
            f"{_column(name)} {points[0][1]:g}" for name, points in columns if len(_levels(points)) == 1
        )
    )


def _column(name: str) -> str:
    return WORDS.get(name, name.replace("_", " "))


def _panel_curve(panel: int, name: str, points: Points) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(_column(name)),
        "x": [second for second, _ in points],
        "y": [value for _, value in points],
        "yaxis": f"y{panel + 1 if panel else ''}",
        "showlegend": False,
        "line": {"color": PALETTE[panel % len(PALETTE)], "width": 2},
        "hovertemplate": f"%{{y:.4g}} after %{{x:.3g}} s<extra>{escape(_column(name))}</extra>",
    }


def _panels(names: list[str]) -> Figure:
    """One low panel for each column, below each other, over the same seconds."""
    drawn = PANEL * len(names) + GAP * (len(names) - 1)
    layout: Figure = {
        "xaxis": {
            "title": {"text": "seconds", "standoff": 4},
            "anchor": f"y{len(names) if len(names) > 1 else ''}",
        },
        "height": drawn + TOP + BOTTOM,
        "margin": {"l": 62, "r": 16, "t": TOP, "b": BOTTOM},
        "hovermode": "x unified",
        "hoversubplots": "axis",
    }
    for panel, name in enumerate(names):
        top = 1 - panel * (PANEL + GAP) / drawn
        layout[f"yaxis{panel + 1 if panel else ''}"] = {
            "title": {"text": escape(_column(name))},
            "domain": [max(0.0, top - PANEL / drawn), top],
            "nticks": 4,
        }
    return layout


def trace_gaps(benches: Sequence[Bench]) -> list[tuple[str, str]]:
    """What of the machine could not be read, and why."""
    reasons: dict[str, dict[str, None]] = {}
    for bench in benches:
        for name, why in (bench.trace.gaps if bench.trace else {}).items():
            reasons.setdefault(why, {})[_column(name)] = None
    return [(" and ".join(names), why) for why, names in reasons.items()]
