from __future__ import annotations

import numpy as np
import pytest

from optkit.stages.explain.choose import at_random, half_wrong


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


def test_the_sample_does_not_depend_on_the_answers():
    wrong = np.arange(1000) < 100
    shares = [wrong[at_random(1000, 8, seed)].mean() for seed in range(400)]
    assert 0.08 < np.mean(shares) < 0.12
    assert at_random(1000, 8, 0).tolist() != at_random(1000, 8, 1).tolist()
    assert at_random(1000, 8, 0).tolist() == half_wrong(np.zeros(1000, bool), 8, 0).tolist()
    assert sorted(at_random(3, 8, 0)) == [0, 1, 2]
