"""The data card tolerates what is absent and bounds what is many."""

from __future__ import annotations

import pytest

from optkit.core.errors import InputError
from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.datacard import MAX_CLASSES, class_bars

from .run_folder import RunFolder, data_card


def test_steps_with_the_same_data_share_a_card(empty_run: RunFolder) -> None:
    same = data_card(["cat", "dog"])
    for name, data in (("teacher", same), ("other", {"train": 3, "new": 1}), ("student", same)):
        empty_run.add(name, "finetune", Format.TORCH, size=1, details={"data": data})
    second, first = sorted(collect(empty_run.path).data, key=lambda card: len(card.steps))
    assert set(first.steps) == {"teacher", "student"}
    assert first.leaks is not None
    assert first.leaks.pairs[0] == ("cat/1.jpg", "cat/9.jpg", "exact")
    assert (second.steps, second.train, second.leaks, second.per_class) == (("other",), 3, None, {})


def test_bars_of_few_classes_keep_their_order(empty_run: RunFolder) -> None:
    data = {"per_class": {"dog": [10, 0], "cat": [40, 20]}}
    empty_run.add("model", "finetune", Format.TORCH, size=1, details={"data": data})
    bars = class_bars(collect(empty_run.path).data[0])
    assert [(bar.name, bar.train, bar.val) for bar in bars] == [("dog", 10, 0), ("cat", 40, 20)]
    assert [(bar.train_share, bar.val_share) for bar in bars] == [(0.25, 0.0), (1.0, 0.5)]


def test_of_many_classes_the_largest_and_the_smallest_are_shown(empty_run: RunFolder) -> None:
    data = {"per_class": {f"{index:03d}": [1000 - index, 0] for index in range(500)}}
    empty_run.add("model", "finetune", Format.TORCH, size=1, details={"data": data})
    bars = class_bars(collect(empty_run.path).data[0])
    assert len(bars) == MAX_CLASSES
    assert (bars[0].name, bars[-1].name) == ("000", "499")
    assert [bar.gap for bar in bars if bar.gap] == [500 - MAX_CLASSES]


def test_a_card_of_another_version_is_an_input_error(empty_run: RunFolder) -> None:
    empty_run.add("model", "finetune", Format.TORCH, size=1, details={"data": {"per_class": 3}})
    with pytest.raises(InputError, match="'model' cannot be read"):
        collect(empty_run.path)
