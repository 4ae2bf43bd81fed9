from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr, t

from optkit.measure.map_agreement import compare_maps, mean_interval


@pytest.fixture
def maps() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(np.maximum(rng.normal(size=(20, 20)), 0).astype(np.float32) for _ in range(2))


def test_a_map_agrees_with_itself(maps):
    found = compare_maps(maps[0], maps[0] * 3)
    assert (found.pearson, found.spearman, found.iou) == pytest.approx((1, 1, 1))


def test_faint_maps_are_compared_like_strong_ones(maps):
    faint, strong = compare_maps(*(values * 1e-6 for values in maps)), compare_maps(*maps)
    assert faint.pearson == pytest.approx(strong.pearson, abs=1e-4)


def test_unrelated_maps_do_not_agree_and_equal_the_references(maps):
    found = compare_maps(*maps)
    assert found.pearson == pytest.approx(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1], abs=1e-6)
    assert found.spearman == pytest.approx(spearmanr(maps[0].ravel(), maps[1].ravel())[0], abs=1e-6)
    assert abs(found.pearson) < 0.2
    assert found.iou < 0.3


def test_overlap_known_by_hand():
    """Ten by ten: the highest fifths are rows 0-1 and rows 1-2, which share one row of three."""
    one, other = np.zeros((10, 10), np.float32), np.zeros((10, 10), np.float32)
    one[:2] = other[1:3] = 1
    assert compare_maps(one, other).iou == pytest.approx(1 / 3)


def test_zeros_are_not_in_the_highest_fifth():
    one, other = np.zeros((10, 10), np.float32), np.zeros((10, 10), np.float32)
    one[0, 0] = other[0, :2] = 1
    assert compare_maps(one, other).iou == pytest.approx(1 / 2)


def test_maps_of_different_sizes():
    large = np.zeros((40, 40), np.float32)
    large[:10, :10] = 1
    small = np.zeros((20, 20), np.float32)
    small[:5, :5] = 1
    assert compare_maps(large, small).pearson == pytest.approx(1)


def test_a_flat_map_agrees_with_nothing(maps):
    found = compare_maps(maps[0], np.zeros((20, 20), np.float32))
    assert (found.pearson, found.spearman, found.iou) == (None, None, None)


@pytest.mark.parametrize("n", [3, 8, 30])
def test_interval_of_a_mean_is_students(n):
    values = np.random.default_rng(0).normal(0.3, 0.1, n)
    expected = t.interval(0.95, n - 1, values.mean(), values.std(ddof=1) / np.sqrt(n))
    assert mean_interval(values, -1) == pytest.approx(expected, rel=5e-3)


def test_intervals_of_few_images_cover_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        low, high = mean_interval(rng.normal(0.4, 0.1, 8), 0)
        hits += low <= 0.4 <= high
    assert 930 <= hits <= 970


def test_an_interval_stays_within_what_is_possible():
    low, high = mean_interval([0.0, 0.05, 1.0], 0)
    assert (low, high) == (0.0, 1.0)
    assert mean_interval([0.0, 0.05, 1.0], -1)[0] < 0
    assert mean_interval([0.5, 0.6], 0) is None
