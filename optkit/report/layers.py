"""What every layer costs, and how near it comes to what the machine can do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from optkit.core.types import Record
from optkit.report import text
from optkit.report.bench_schema import Bench, Layer, LayerCosts, Roofline
from optkit.report.plots import COLOURS, NEUTRAL, OTHER_COLOUR, SYMBOLS, Figure, Plot
from optkit.report.schema import Row
from optkit.report.tables import Cell, Column, Table, without_empty_columns

DEAREST = 15  # bars of a model
LISTED = 300  # rows of its table
MAX_MODELS = 8  # in one plot
NAMED = 12  # layers without a time
NOT_COUNTED = "not counted"
NO_CEILINGS = "the ceilings are not known"
COLUMNS = (
    Column("Layer", is_number=False),
    Column("Type", is_number=False),
    Column("ms"),
    Column("Of the total"),
    Column("MACs"),
    Column("Bytes"),
    Column("MACs/byte"),
    Column("MACs/s reached"),
    Column("Limit, ms"),
    Column("Limit reached"),
    Column("Bound by", is_number=False),
    Column("Precision", is_number=False),
)


class LayerBar(Record):
    """A layer as a bar: `length` of the dearest one's, and `limit`, the part of it that the ceilings ask for."""

    layer: Layer
    length: float
    limit: float | None


def dearest(found: LayerCosts) -> list[LayerBar]:
    """The layers that take the most time."""
    layers = sorted(_timed(found), key=lambda layer: -(layer.ms or 0))[:DEAREST]
    longest = max((layer.ms or 0 for layer in layers), default=0) or 1
    return [
        LayerBar(
            layer=layer,
            length=(layer.ms or 0) / longest,
            limit=None if layer.limit_ms is None else min(layer.limit_ms / longest, 1.0),
        )
        for layer in layers
    ]


def _timed(found: LayerCosts) -> Iterator[Layer]:
    return (layer for layer in found.layers if layer.ms is not None and layer.ms >= 0)


def layers_table(found: LayerCosts) -> Table:
    """Every layer, in the order of the network."""
    rows = tuple(_cells(layer) for layer in found.layers[:LISTED])
    return without_empty_columns(Table(f"Every layer of {found.name} in {found.runtime}", COLUMNS, rows))


def unlisted(found: LayerCosts) -> int:
    """How many layers the table leaves out."""
    return max(0, len(found.layers) - LISTED)


def _cells(layer: Layer) -> tuple[Cell, ...]:
    measured = (
        Cell(layer.name),
        Cell(layer.type),
        _number(layer.ms, text.figure),
        _number(layer.share, text.percent),
    )
    precision = Cell((layer.precision or "").upper())
    if layer.macs == 0:  # what was not counted has no work, and no limit either
        return *measured, *(Cell() for _ in range(6)), Cell(NOT_COUNTED, order=""), precision
    return (
        *measured,
        _number(layer.macs, text.count),
        _number(layer.bytes, text.size),
        _number(layer.macs_per_byte, text.figure),
        _number(layer.macs_per_s, text.count),
        _number(layer.limit_ms, text.figure, NO_CEILINGS),
        _number(layer.of_limit, text.percent, NO_CEILINGS),
        Cell(layer.bound or "", reason=NO_CEILINGS),
        precision,
    )


def _number(value: float | None, words: Callable[[float], str], reason: str = "not known") -> Cell:
    return Cell(reason=reason) if value is None else Cell(words(value), order=value)


def layers_sentence(found: LayerCosts) -> str:
    """`onnxruntime, batch 1; 4.2 ms in 61 layers; 0.3 ms of it belong to none of them; …`."""
    parts = [f"{found.runtime}, batch {found.batch or 1}"]
    if found.total_ms is not None:
        parts.append(f"{text.figure(found.total_ms)} ms in {len(found.layers)} layers")
    if found.unmapped_ms:
        parts.append(f"{text.figure(found.unmapped_ms)} ms of it belong to none of them")
    if found.limit_ms is not None:
        parts.append(f"the machine's ceilings allow {text.figure(found.limit_ms)} ms")
    if found.of_limit is not None:
        parts.append(f"{text.percent(found.of_limit)} of the limit reached")
    return "; ".join(parts)


def layers_notes(found: LayerCosts) -> list[str]:
    """How to read the figures, and which counted layers have no time."""
    notes = [found.note] if found.note else []
    if found.without_time:
        names = ", ".join(map(text.short_name, found.without_time[:NAMED]))
        more = len(found.without_time) - NAMED
        rest = f" and {more} more, named in report.json" if more > 0 else ""
        notes.append(f"Counted, but no kernel of the runtime stands for them: {names}{rest}.")
    return notes


def roofline_plots(benches: Sequence[Bench], rows: Sequence[Row]) -> list[Plot]:
    """Every bench's machine: its two ceilings, and every layer below them; a precision has one colour.

    The ceilings are those of one device: layers that ran on another one are not drawn.
    """
    precisions = {row.key: row.precision for row in rows}
    plots = []
    for index, bench in enumerate(benches):
        on_gpu = {(row.key, row.runtime): row.on_gpu for row in rows if row.bench == bench.step}
        models = [
            (found, _points(found))
            for found in bench.layers
            if bench.roofline
            and on_gpu.get((found.key, found.runtime)) in (None, bench.roofline.device != "cpu")
        ]
        models = [(found, points) for found, points in models if points][:MAX_MODELS]
        if bench.roofline and models:
            title = "Roofline" if len(benches) == 1 else f"Roofline of {bench.step}"
            alt = f"{title}: {roofline_sentence(bench.roofline)}. " + "; ".join(
                f"{found.name} in {found.runtime}: {len(points)} layers, the best at "
                f"{text.count(max(layer.macs_per_s or 0 for layer in points))}MACs/s"
                for found, points in models
            )
            plots.append(
                Plot(f"roofline-{index}", title, f"{alt}.", _figure(bench.roofline, models, precisions))
            )
    return plots


def _points(found: LayerCosts) -> list[Layer]:
    return [layer for layer in found.layers if layer.macs_per_s and layer.macs_per_byte]


def roofline_sentence(found: Roofline) -> str:
    """The two ceilings in words."""
    computed = [f"{name.upper()} {text.count(rate)}MACs/s" for name, rate in found.macs_per_s.items()]
    moved = [f"memory {text.size(found.bytes_per_s)}/s"] if found.bytes_per_s else []
    where = ", ".join(filter(None, (found.device, f"{found.threads} threads" if found.threads else "")))
    return f"measured ceilings: {', '.join(computed + moved)}" + (f" ({where})" if where else "")


def _figure(
    roofline: Roofline, models: list[tuple[LayerCosts, list[Layer]]], precisions: dict[str, str]
) -> Figure:
    xs = [layer.macs_per_byte or 1 for _, points in models for layer in points]
    ys = [layer.macs_per_s or 1 for _, points in models for layer in points]
    left, right = min(xs) / 2, max(xs) * 2
    ceilings = [rate for rate in roofline.macs_per_s.values() if rate > 0]
    if roofline.bytes_per_s and ceilings:
        right = max(right, 2 * max(ceilings) / roofline.bytes_per_s)
    traces = [
        _ceiling(name, rate, roofline, left, right) for name, rate in roofline.macs_per_s.items() if rate > 0
    ]
    for (found, points), symbol in zip(models, SYMBOLS * MAX_MODELS, strict=False):
        colour = COLOURS.get(precisions.get(found.key, ""), OTHER_COLOUR)
        traces.append(_layer_trace(found, points, colour, symbol))
    low, high = min(ys) / 2, max(ys + ceilings) * 2
    return {
        "data": traces,
        "layout": {
            "xaxis": _log_axis("MACs per byte", left, right),
            "yaxis": {**_log_axis("MACs/s", low, high), "exponentformat": "SI"},
            "height": 460,
            "margin": {"l": 70, "r": 24, "t": 16, "b": 96},
            "legend": {"orientation": "h", "y": -0.2, "x": 0},
            "hovermode": "closest",
        },
    }


def _log_axis(words: str, low: float, high: float) -> Figure:
    return {"title": {"text": words}, "type": "log", "dtick": 1, "range": [math.log10(low), math.log10(high)]}


def _ceiling(name: str, rate: float, roofline: Roofline, left: float, right: float) -> Figure:
    """The memory's slope up to where it meets what the cores can compute, and from there on a level line."""
    bandwidth = roofline.bytes_per_s
    knee = rate / bandwidth if bandwidth else left
    xs = [left, *([knee] if left < knee < right else []), right]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{escape(name.upper())} ceiling, measured",
        "x": xs,
        "y": [min(rate, x * bandwidth) if bandwidth else rate for x in xs],
        "line": {"color": COLOURS.get(name, NEUTRAL), "width": 2, "dash": "dot"},
        "hovertemplate": f"measured ceiling: {escape(text.count(rate))}MACs/s"
        + (f", {escape(text.size(bandwidth))}/s" if bandwidth else "")
        + "<extra></extra>",
    }


def _layer_trace(found: LayerCosts, points: list[Layer], colour: str, symbol: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(f"{found.name} in {found.runtime}"),
        "x": [layer.macs_per_byte for layer in points],
        "y": [layer.macs_per_s for layer in points],
        "customdata": [[_hover(layer)] for layer in points],
        "hovertemplate": "%{customdata[0]}<extra></extra>",
        "marker": {
            "color": colour,
            "symbol": symbol,
            "size": [6 + 24 * math.sqrt(min(1.0, layer.share or 0)) for layer in points],
            "opacity": 0.75,
        },
    }


def _hover(layer: Layer) -> str:
    lines = [f"<b>{escape(text.short_name(layer.name))}</b> {escape(layer.type)}"]
    share = "" if layer.share is None else f", {text.percent(layer.share)} of the time"
    lines.append(f"{text.figure(layer.ms or 0)} ms{share}")
    lines.append(
        f"{text.count(layer.macs_per_s or 0)}MACs/s at {text.figure(layer.macs_per_byte or 0)} MACs/byte"
    )
    if layer.of_limit is not None:
        bound = f" ({escape(layer.bound)})" if layer.bound else ""
        lines.append(f"{text.percent(layer.of_limit)} of its limit{bound}")
    return "<br>".join(lines)
