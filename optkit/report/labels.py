"""Where the names in the Pareto plot go, so that they do not cover each other."""

from __future__ import annotations

import math

from optkit.report.schema import Row

WIDTH, HEIGHT = 330, 350  # of the drawing on a phone: what is free there is free on a wider one
LETTER, LINE, MARKER = 7, 16, 7  # pixels
PLACES = ("top right", "bottom right", "top left", "bottom left")
Box = tuple[float, float, float, float]  # left, bottom, right, top


def label_places(rows: list[Row], x_range: list[float], logarithmic: bool) -> list[str]:
    """plotly's `textposition` of every row: the place that covers the least, one row after the other."""
    centres = _centres(rows, x_range, logarithmic)
    markers = [(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in centres]
    bars = [(x - 1, 0.0, x + 1, float(HEIGHT)) for x, _ in centres]
    labels: list[Box] = []
    places = []
    for row, centre in zip(rows, centres, strict=True):

        def cost(place: str, row: Row = row, centre: tuple[float, float] = centre) -> float:
            box = _label_box(row.name, centre, place)
            outside = max(0.0, -box[0]) + max(0.0, box[2] - WIDTH)
            covered = 20 * _covered(box, labels) + 10 * _covered(box, markers) + _covered(box, bars)
            return covered + outside

        place = min(PLACES, key=cost)
        places.append(place)
        labels.append(_label_box(row.name, centre, place))
    return places


def _centres(rows: list[Row], x_range: list[float], logarithmic: bool) -> list[tuple[float, float]]:
    lows = [(row.top1_interval or (row.top1 or 0,) * 2)[0] for row in rows]
    highs = [(row.top1_interval or (row.top1 or 0,) * 2)[1] for row in rows]
    low, height = min(lows), max(highs) - min(lows) or 1.0
    xs = [math.log10(row.p50 or 1) if logarithmic else row.p50 or 0 for row in rows]
    width = x_range[1] - x_range[0] or 1.0
    return [
        (WIDTH * (x - x_range[0]) / width, HEIGHT * ((row.top1 or 0) - low) / height)
        for x, row in zip(xs, rows, strict=True)
    ]


def _label_box(name: str, centre: tuple[float, float], place: str) -> Box:
    x, y = centre
    left = x + MARKER if place.endswith("right") else x - MARKER - LETTER * len(name)
    bottom = y + 2 if place.startswith("top") else y - 2 - LINE
    return left, bottom, left + LETTER * len(name), bottom + LINE


def _covered(box: Box, others: list[Box]) -> int:
    return sum(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in others
    )
