from __future__ import annotations

import numpy as np
import pytest

from optkit.stages.explain.choose import half_wrong


@pytest.mark.parametrize(
    ("mistakes", "count", "shown"), [(50, 8, 4), (2, 8, 2), (0, 8, 0), (98, 8, 6), (100, 8, 8)]
)
def test_half_are_mistakes_where_there_are_as_many(mistakes, count, shown):
    wrong = np.arange(100) < mistakes
    chosen = half_wrong(wrong, count, 0)
    assert len(set(chosen.tolist())) == count
    assert wrong[chosen].tolist() == [True] * shown + [False] * (count - shown)


def test_the_seed_draws_others():
    wrong = np.arange(100) < 50
    assert half_wrong(wrong, 8, 0).tolist() == half_wrong(wrong, 8, 0).tolist()
    assert set(half_wrong(wrong, 8, 0)) != set(half_wrong(wrong, 8, 1))


def test_fewer_images_than_asked_for():
    assert sorted(half_wrong(np.array([True, False, False]), 8, 0)) == [0, 1, 2]
