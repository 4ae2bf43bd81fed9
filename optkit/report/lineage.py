"""The lineage of a run as the geometry of an SVG drawing."""

from __future__ import annotations

from dataclasses import dataclass

from optkit.core.types import Format
from optkit.report import text
from optkit.report.schema import Step

ROW_HEIGHT = 58
ARC_WIDTH = 132


@dataclass(frozen=True)
class Node:
    """A step of the lineage drawing: its place and its two lines of text."""

    x: float
    y: float
    title: str
    detail: str
    measures: bool


@dataclass(frozen=True)
class Lineage:
    """Steps one below the other, and an arc from every step to each one made from it (`path` is SVG).

    `alt` is the drawing in words.
    """

    width: int
    height: int
    nodes: tuple[Node, ...]
    arcs: tuple[tuple[str, bool], ...]
    alt: str


def lineage(steps: tuple[Step, ...]) -> Lineage:
    """Geometry of the lineage; arcs into steps that only measure are marked so that they can recede."""
    y = {step.name: ROW_HEIGHT * index + ROW_HEIGHT / 2 for index, step in enumerate(steps)}
    place = {step.name: index for index, step in enumerate(steps)}
    nodes, arcs = [], []
    for step in steps:
        manifest = step.manifest
        measures = manifest.format is Format.RESULT
        model = text.label("", manifest.precision, manifest.format).strip(" ()")
        kind = {Format.RESULT: "measurements", Format.IMAGES: "calibration images"}.get(
            manifest.format, model
        )
        detail = f"{kind} · {text.duration(manifest.seconds)} · {manifest.key[:8]}"
        title = step.name if step.name == manifest.stage else f"{step.name} · {manifest.stage}"
        nodes.append(Node(ARC_WIDTH, y[step.name], title, detail, measures))
        for source in step.sources:
            if source in y:
                arcs.append((_arc(y[source], y[step.name], place[step.name] - place[source]), measures))
    alt = "; ".join(_made_from(step, [source for source in step.sources if source in y]) for step in steps)
    return Lineage(560, ROW_HEIGHT * len(steps), tuple(nodes), tuple(arcs), f"Lineage: {alt}")


def _made_from(step: Step, sources: list[str]) -> str:
    """`int8 from onnx`."""
    return f"{step.name} from {' and '.join(sources)}" if sources else step.name


def _arc(top: float, bottom: float, steps: int) -> str:
    """An arc to the left of the steps, the wider the more steps it spans."""
    left = ARC_WIDTH * 0.72**steps
    return f"M{ARC_WIDTH} {top:g}C{left:.1f} {top:g} {left:.1f} {bottom:g} {ARC_WIDTH} {bottom:g}"
