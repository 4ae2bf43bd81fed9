"""Images that one model gets right and the other wrong: by class, and as pictures."""

from __future__ import annotations

from collections.abc import Sequence

from optkit.core.types import Record
from optkit.report import text
from optkit.report.bench_schema import Bench, ClassFlips, FlippedImage, Flips
from optkit.report.evaluation_schema import Picture
from optkit.report.pictures import MAX_PICTURES
from optkit.report.tables import Cell, Column, Table

KINDS = {
    "lost": "Lost: right before, wrong now",
    "won": "Won: wrong before, right now",
    "changed": "Changed",  # the model calls the classes otherwise than the data does
}
OPEN = 8  # pictures of a kind that are seen without unfolding
COLUMNS = (Column("Class", is_number=False), Column("Images"), Column("Lost"), Column("Won"), Column("Net"))


class FlipStrip(Record):
    """Pictures of one kind of change; `folded` ones are shown on demand."""

    words: str
    shown: tuple[FlippedImage, ...]
    folded: tuple[FlippedImage, ...]


def changed(benches: Sequence[Bench]) -> list[tuple[str, Flips]]:
    """By step: every model of which some answer changed between right and wrong."""
    return [(bench.step, found) for bench in benches for found in bench.flips if found.lost or found.won]


def class_table(found: Flips) -> Table:
    """Classes in which something changed, the most losses first."""
    classes = [one for one in found.by_class if one.lost or one.won]
    classes.sort(key=lambda one: (-one.lost, -one.won))
    rows = tuple(_class_row(one) for one in classes)
    return Table(f"Classes in which an answer of {found.name} changed between right and wrong", COLUMNS, rows)


def _class_row(found: ClassFlips) -> tuple[Cell, ...]:
    net = found.won - found.lost
    return (
        Cell(str(found.name)),
        Cell("" if found.n is None else str(found.n), order=found.n),
        Cell(str(found.lost)),
        Cell(str(found.won)),
        Cell(f"{net:+d}".replace("-", "−") if net else "0", order=net, tone=_tone(net)),
    )


def _tone(net: int) -> str:
    return "gain" if net > 0 else "loss" if net < 0 else ""


def strips(found: Flips) -> list[FlipStrip]:
    """What was lost, then what was won."""
    kinds = [
        (words, [image for image in found.images if image.kind == kind]) for kind, words in KINDS.items()
    ]
    return [
        FlipStrip(words=words, shown=tuple(images[:OPEN]), folded=tuple(images[OPEN:MAX_PICTURES]))
        for words, images in kinds
        if images
    ]


def as_picture(image: FlippedImage) -> Picture:
    """What the album takes."""
    return Picture(image=image.image, file=image.file)


def alt(image: FlippedImage) -> str:
    """`val/7.jpg: true cat, before cat 81.0 %, after dog 62.0 %`."""
    before, after = (
        f"{answer}{'' if p is None else f' {text.percent(p)}'}"
        for answer, p in ((image.before, image.p_before), (image.after, image.p_after))
    )
    truth = "" if image.label is None else f"true {image.label}, "
    return f"{image.file or image.image}: {truth}before {before}, after {after}"


def sentence(found: Flips) -> str:
    """`12 lost and 9 won of 500 images against fp32 (McNemar: p = 0.66)`."""
    counts = f"{found.lost} lost and {found.won} won"
    total = f" of {found.n} images" if found.n else ""
    chance = "" if found.p_value is None else f" (McNemar: {text.p_value(found.p_value)})"
    return f"{counts}{total} against {found.reference or 'the reference'}{chance}"
