"""Confusion matrices in a size that people can read, from two to thousands of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from optkit.report.evaluation_schema import Confused, HeatMap

Counts = Counter[tuple[int, int]]  # by class index: (truth, prediction) → images
MAX_CLASSES = 16  # of the heat map: what a page shows without scrolling
MAX_PAIRS = 20


def count_confusion(matrix: Any) -> Counts:
    """A matrix (rows: truth) as its cells that are not zero; nothing when it is no matrix of counts."""
    counts = Counts()
    for label, row in enumerate(matrix if isinstance(matrix, list) else ()):
        for prediction, n in enumerate(row if isinstance(row, list) else ()):
            if isinstance(n, int) and n > 0:
                counts[label, prediction] = n
    return counts


def heat_map(counts: Counts, names: Sequence[str]) -> HeatMap | None:
    """The matrix of the classes that occur; where these are many, of those most confused with each other."""
    occurring = sorted({index for pair in counts for index in pair})
    if not occurring:
        return None
    shown = occurring
    if len(occurring) > MAX_CLASSES:
        shown = _most_confused(counts) or occurring[:MAX_CLASSES]
    inside = set(shown)
    others = Counter[int]()
    for (label, prediction), n in counts.items():
        others[label] += n if prediction not in inside else 0
    return HeatMap(
        names=tuple(_name(index, names) for index in shown),
        counts=tuple(tuple(counts[label, prediction] for prediction in shown) for label in shown),
        others=tuple(others[label] for label in shown),
        left_out=len(occurring) - len(shown),
    )


def _most_confused(counts: Counts) -> list[int]:
    """Classes of the most frequent mistakes, pair by pair, so that both ends of a mistake are shown."""
    found: set[int] = set()
    for pair, _ in _mistakes(counts):
        if len(found.union(pair)) > MAX_CLASSES:
            break
        found.update(pair)
    return sorted(found)


def confused_pairs(counts: Counts, names: Sequence[str]) -> tuple[Confused, ...]:
    """The most frequent mistakes."""
    totals = Counter[int]()
    for (label, _), n in counts.items():
        totals[label] += n
    return tuple(
        Confused(label=_name(label, names), prediction=_name(guess, names), n=n, share=n / totals[label])
        for (label, guess), n in _mistakes(counts)[:MAX_PAIRS]
    )


def _mistakes(counts: Counts) -> list[tuple[tuple[int, int], int]]:
    wrong = [(pair, n) for pair, n in counts.items() if pair[0] != pair[1]]
    return sorted(wrong, key=lambda entry: (-entry[1], entry[0]))


def _name(index: int, names: Sequence[str]) -> str:
    return names[index] if 0 <= index < len(names) else str(index)
