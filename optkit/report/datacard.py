"""The data card: what the training steps' manifests say about their images."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from optkit.core.types import Record
from optkit.report.findings import unreadable
from optkit.report.schema import DataCard, Step

MAX_CLASSES = 24  # of a card; of more classes the largest and the smallest are shown


class ClassBar(Record):
    """A class's images, and their share of the largest class's; `gap` before it when classes are left out."""

    name: str
    train: int
    val: int
    train_share: float
    val_share: float
    gap: int = 0


def data_cards(steps: Sequence[Step]) -> list[DataCard]:
    """The data that steps trained on; steps with the same data share a card."""
    cards: list[DataCard] = []
    for step in steps:
        if not isinstance(step.manifest.details.get("data"), dict):
            continue
        try:
            card = DataCard.model_validate(step.manifest.details["data"])
        except ValidationError as error:
            raise unreadable(step, error) from None
        for place, other in enumerate(cards):
            if card == other.model_copy(update={"steps": ()}):
                cards[place] = other.model_copy(update={"steps": (*other.steps, step.name)})
                break
        else:
            cards.append(card.model_copy(update={"steps": (step.name,)}))
    return cards


def class_bars(card: DataCard) -> list[ClassBar]:
    """The classes of a card; of many, the largest and the smallest by their training images."""
    counts = list(card.per_class.items())
    largest = max((n for _, both in counts for n in both), default=0) or 1
    left_out = max(0, len(counts) - MAX_CLASSES)
    half = MAX_CLASSES // 2
    if left_out:
        counts.sort(key=lambda entry: -entry[1][0])
        counts = counts[:half] + counts[-half:]
    return [
        ClassBar(
            name=name,
            train=train,
            val=val,
            train_share=train / largest,
            val_share=val / largest,
            gap=left_out if place == half else 0,
        )
        for place, (name, (train, val)) in enumerate(counts)
    ]
