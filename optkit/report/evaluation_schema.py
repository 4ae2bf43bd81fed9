"""What `evaluate` and `explain` steps found out about single models."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from optkit.core.types import Record
from optkit.report.base import Finding, Interval


class Picture(Finding):
    """An image in an artifact folder (`image`: its path there) and what one model, or two, said about `file`.

    `iou` tells how far the maps of the two overlap.
    """

    image: str
    file: str = ""
    label: str | int | None = None
    prediction: str | int | None = None
    p: float | None = None
    prediction_other: str | int | None = None
    p_other: float | None = None
    iou: float | None = None


class Figure(Record):
    """A headline figure with its 95 % interval; `is_share` when 0 … 1 is shown as percent."""

    name: str
    words: str
    value: float
    interval: Interval | None = None
    is_share: bool = True


class ClassResult(Finding):
    """A class's own figures; `n` are its images."""

    name: str = Field(validation_alias=AliasChoices("class", "name"))
    n: int | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    confused_with: str | None = None


class Confused(Record):
    """`n` images of class `label`, `share` of all its images, that were taken for `prediction`."""

    label: str
    prediction: str
    n: int
    share: float


class HeatMap(Record):
    """The confusion matrix of some classes: `counts[i][j]` images of class i were taken for class j.

    `others[i]` were taken for a class that is not among them; `left_out` classes are not.
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]
    left_out: int = 0


class Evaluation(Record):
    """What an `evaluate` step found out about a model."""

    step: str
    model: str
    model_key: str
    split: str = ""
    runtime: str = ""
    n: int | None = None
    figures: tuple[Figure, ...] = ()
    classes: tuple[ClassResult, ...] = ()
    heat_map: HeatMap | None = None
    confused: tuple[Confused, ...] = ()
    mistakes: tuple[Picture, ...] = ()

    def figure(self, name: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.name == name), None)


class Explanation(Record):
    """The maps of an `explain` step, and how far two models agree on `agreement_n` images drawn at random."""

    step: str
    models: tuple[str, ...]
    maps: tuple[Picture, ...]
    agreement: tuple[Figure, ...] = ()
    agreement_n: int | None = None
