from __future__ import annotations

import math

import numpy as np
import pytest

from optkit.measure.statistics import (
    ENOUGH,
    bootstrap,
    paired_difference,
    paired_gain,
    percentiles,
    t95,
    wilson,
)


def test_percentiles_are_values_that_occurred():
    found = percentiles([float(value) for value in range(1, 1001)])
    assert found.values() == {"p50": 500.0, "p90": 900.0, "p99": 990.0}
    assert found.indicative == ()


@pytest.mark.parametrize(
    ("n", "indicative"), [(10, ("p50", "p90", "p99")), (11, ("p90", "p99")), (64, ("p99",)), (662, ())]
)
def test_percentiles_of_small_samples_are_flagged(n, indicative):
    assert percentiles([1.0] * n).indicative == indicative


@pytest.mark.parametrize("percent", list(ENOUGH))
def test_the_sample_sizes_follow_from_the_binomial_distribution(percent):
    def at_most_one_beyond(n: int) -> float:
        q = percent / 100
        return n * q ** (n - 1) * (1 - q) + q**n

    assert at_most_one_beyond(ENOUGH[percent]) <= 0.01 < at_most_one_beyond(ENOUGH[percent] - 1)


def test_wilson_interval():
    low, high = wilson(970, 1000)
    assert (low, high) == (pytest.approx(0.9575, abs=5e-4), pytest.approx(0.9789, abs=5e-4))
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == pytest.approx(1.0)
    assert 0.8 < wilson(20, 20)[0] < 0.9


def test_a_paired_gain_sees_through_what_the_things_differ_in():
    rng = np.random.default_rng(0)
    before = rng.normal(20, 10, 30)
    mean, low, high = paired_gain(before, before + 0.5 + rng.normal(0, 0.1, 30))
    assert 0 < low < mean < high < 1


def test_the_interval_of_a_paired_gain_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        _, low, high = paired_gain(np.zeros(8), rng.normal(1, 2, 8))
        covered += low <= 1 <= high
    assert 930 <= covered <= 970


def test_quantiles_of_student_are_those_of_the_table():
    for freedom, quantile in ((1, 12.706), (3, 3.182), (7, 2.365), (30, 2.042)):
        assert t95(freedom) == pytest.approx(quantile, rel=2e-3)


def test_one_pair_says_nothing_about_chance():
    assert paired_gain(np.array([1.0]), np.array([3.0])) == (2.0, -math.inf, math.inf)


def test_paired_difference_counts_what_changed():
    first = [True] * 90 + [False] * 10
    second = [True] * 84 + [False] * 6 + [True] * 1 + [False] * 9
    found = paired_difference(first, second)
    assert (found.lost, found.won, found.n) == (6, 1, 100)
    assert found.drop == pytest.approx(0.05)
    assert found.interval[0] < 0.05 < found.interval[1]
    # Binomial(7, 1/2): P(X <= 1) = 8/128, doubled.
    assert found.p_value == pytest.approx(2 * 8 / 128)


def test_paired_difference_of_equal_answers_is_no_evidence():
    found = paired_difference([True, False, True], [True, False, True])
    assert (found.drop, found.p_value) == (0.0, 1.0)
    assert found.interval[0] < 0 < found.interval[1]


def test_paired_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        kind = rng.choice(4, size=200, p=[0.85, 0.05, 0.02, 0.08])  # both, lost, won, neither: a drop of 0.03
        found = paired_difference((kind < 2).tolist(), ((kind == 0) | (kind == 2)).tolist())
        hits += found.interval[0] <= 0.03 <= found.interval[1]
    assert hits / 300 > 0.92


def test_p_value_of_many_images_is_finite():
    found = paired_difference([True] * 50_000, [False] * 3_000 + [True] * 47_000)
    assert 0 <= found.p_value < 1e-100
    assert math.isfinite(found.interval[0])


def test_different_lengths_are_a_bug():
    with pytest.raises(ValueError, match="equally long"):
        paired_difference([True], [True, False])


def test_bootstrap_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(5, 2, 400)
    ((low, high),) = bootstrap(lambda w: np.atleast_1d(np.average(values, weights=w)), 400, 0)
    error = values.std() / math.sqrt(400)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.2 * error)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_bootstrap_does_not_add_its_own_bias():
    """Of the number of distinct values every resample shows fewer; the interval still holds the figure."""
    values = np.arange(50)
    ((low, high),) = bootstrap(lambda w: np.atleast_1d(float(len(set(values[w > 0])))), 50, 0)
    assert low < 50 < high


def test_bootstrap_follows_its_seed():
    values = np.random.default_rng(0).random(30)

    def mean(weights):
        return np.atleast_1d(np.average(values, weights=weights))

    assert bootstrap(mean, 30, 1).tolist() == bootstrap(mean, 30, 1).tolist()
    assert bootstrap(mean, 30, 1).tolist() != bootstrap(mean, 30, 2).tolist()
