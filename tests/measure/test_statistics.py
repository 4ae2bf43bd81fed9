from __future__ import annotations

import math

import numpy as np
import pytest

from optkit.measure.statistics import (
    ENOUGH,
    Ratio,
    bootstrap,
    paired_difference,
    paired_gain,
    paired_ratio,
    percentile_interval,
    percentiles,
    student,
    t95,
    wilson,
)


def test_percentiles_are_values_that_occurred():
    found = percentiles([float(value) for value in range(1, 1001)])
    assert found.values == {"p50": 500.0, "p90": 900.0, "p95": 950.0, "p99": 990.0}
    assert found.refused == {"p99.9": "needs 6,636 calls, has 1,000"}
    assert found.intervals.keys() == found.values.keys()
    assert all(low < found.values[label] < high for label, (low, high) in found.intervals.items())


@pytest.mark.parametrize(("label", "needed"), ENOUGH.items())
def test_percentiles_of_small_samples_are_refused(label, needed):
    assert label in percentiles([1.0] * needed).values
    assert f"needs {needed:,} calls" in percentiles([1.0] * (needed - 1)).refused[label]


@pytest.mark.parametrize("label", list(ENOUGH))
def test_the_sample_sizes_follow_from_the_binomial_distribution(label):
    def at_most_one_beyond(n: int) -> float:
        q = float(label[1:]) / 100
        return n * q ** (n - 1) * (1 - q) + q**n

    assert at_most_one_beyond(ENOUGH[label]) <= 0.01 < at_most_one_beyond(ENOUGH[label] - 1)


def test_the_interval_of_a_percentile_covers_the_truth():
    rng = np.random.default_rng(0)
    hits = np.zeros(2)
    for _ in range(400):
        samples = rng.exponential(1, 2000)
        for index, percent in enumerate((50, 99)):
            low, high = percentile_interval(samples, [], percent)
            hits[index] += low <= -np.log(1 - percent / 100) <= high
    assert ((hits >= 0.93 * 400) & (hits <= 0.985 * 400)).all()


def test_rounds_that_differ_widen_the_interval_of_a_percentile():
    """Calls of a round share its speed, so that 800 of them say as much as a few independent ones."""
    rng = np.random.default_rng(0)
    hits, blind = 0, 0
    for _ in range(300):
        samples = np.exp(0.1 * np.repeat(rng.standard_normal(40), 20) + 0.05 * rng.standard_normal(800))
        low, high = percentile_interval(samples, [20] * 40, 50)
        hits += low <= 1 <= high
        low, high = percentile_interval(samples, [], 50)
        blind += low <= 1 <= high
    assert hits > 0.92 * 300 > 0.7 * 300 > blind


def test_an_interval_that_the_sample_does_not_reach_is_none():
    assert percentile_interval([1.0] * 300, [], 99) is None
    slow_round = [1.0] * 670 + [5.0] * 10
    assert "p99" in percentiles(slow_round).values
    assert "do not reach" in percentiles(slow_round, [10] * 68).refused["p99"]


def test_more_confidence_widens_the_interval_of_a_percentile():
    samples = np.random.default_rng(0).random(200)
    narrow, wide = (percentile_interval(samples, [], 50, confidence) for confidence in (0.8, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_rounds_that_are_not_of_the_samples_are_a_bug():
    with pytest.raises(ValueError, match="rounds of 5"):
        percentile_interval([1.0] * 20, [2, 3], 50)


def logs_of(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Log-ratios of rounds of one and the same model."""
    noise = rng.standard_normal(n)
    if kind == "correlated":
        for i in range(1, n):
            noise[i] = 0.2 * noise[i - 1] + math.sqrt(1 - 0.04) * noise[i]
    disturbed = kind == "disturbed"  # by something else that runs, either of the two models
    bursts = math.log(2) * ((rng.random(n) < 0.05 * disturbed) - 1.0 * (rng.random(n) < 0.05 * disturbed))
    return 0.03 * noise + bursts


@pytest.mark.parametrize("kind", ["plain", "correlated", "disturbed"])
@pytest.mark.parametrize("n", [5, 10, 30])
def test_a_model_is_neither_faster_nor_slower_than_itself(kind, n):
    """In at most 5 of 100; 400 repetitions are known to within 2.2."""
    rng = np.random.default_rng(0)
    found = [paired_ratio(np.exp(logs_of(kind, n, rng)), np.ones(n)) for _ in range(400)]
    assert sum(one.low > 1 or one.high < 1 for one in found) <= 0.07 * 400


def test_disturbed_rounds_do_not_hide_a_difference():
    rng = np.random.default_rng(0)
    found = [paired_ratio(1.1 * np.exp(logs_of("disturbed", 20, rng)), np.ones(20)) for _ in range(200)]
    assert sum(one.low > 1 for one in found) >= 0.95 * 200
    assert np.median([one.value for one in found]) == pytest.approx(1.1, rel=0.005)


def test_a_ratio_turned_round_has_the_interval_turned_round():
    rng = np.random.default_rng(0)
    first, second = rng.random(20) + 2, rng.random(20) + 1
    ratio, inverse = paired_ratio(first, second), paired_ratio(second, first)
    assert (1 / ratio.value, 1 / ratio.high, 1 / ratio.low) == pytest.approx(
        (inverse.value, inverse.low, inverse.high)
    )
    assert ratio.low < ratio.value < ratio.high


def test_more_confidence_widens_the_interval_of_a_ratio():
    rng = np.random.default_rng(0)
    for n in (5, 20):
        times = rng.random(n) + 1
        narrow, wide = (paired_ratio(times, np.ones(n), confidence) for confidence in (0.8, 0.99))
        assert wide.low < narrow.low < narrow.high < wide.high


def test_one_round_says_nothing_of_a_ratio_and_equal_rounds_say_all():
    assert paired_ratio(np.array([2.0]), np.array([1.0])) == Ratio(2.0, 0.0, math.inf)
    assert paired_ratio(np.full(9, 2.0), np.ones(9)) == Ratio(2.0, 2.0, 2.0)


def test_wilson_interval():
    low, high = wilson(970, 1000)
    assert (low, high) == (pytest.approx(0.9575, abs=5e-4), pytest.approx(0.9789, abs=5e-4))
    assert wilson(0, 20)[0] == 0.0
    assert all(wilson(n, n)[1] == 1.0 and wilson(0, n)[0] == 0.0 for n in range(1, 500))
    assert 0.8 < wilson(20, 20)[0] < 0.9


def test_the_interval_of_a_proportion_covers_the_truth_where_few_differ():
    """From 0.02 to 12 of 500 on average, where Wilson's bounds alone hold the truth in 84 of 100 at worst."""
    n, k = 500, np.arange(60)
    bounds = np.array([wilson(n - int(one), n) for one in k])
    assert np.array([wilson(int(one), n) for one in k]) == pytest.approx(1 - bounds[:, ::-1])
    log_ways = np.array([math.log(math.comb(n, one)) for one in k])
    for share in np.linspace(0.00004, 0.024, 600):
        weights = np.exp(log_ways + k * math.log(share) + (n - k) * math.log1p(-share))
        assert weights @ ((bounds[:, 0] <= 1 - share) & (1 - share <= bounds[:, 1])) >= 0.93


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
    for freedom, quantile in ((1, 12.706), (2, 4.303), (3, 3.182), (7, 2.365), (30, 2.042)):
        assert t95(freedom) == pytest.approx(quantile, rel=2e-3)
    for freedom, quantile in ((1, 63.657), (2, 9.925), (3, 5.841), (10, 3.169)):
        assert student(freedom, 0.99) == pytest.approx(quantile, rel=9e-3)


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


def test_more_confidence_widens_the_paired_interval():
    first, second = [True] * 100, [False] * 5 + [True] * 95
    narrow, wide = (paired_difference(first, second, confidence).interval for confidence in (0.8, 0.99))
    assert wide[0] < narrow[0] < 0.05 < narrow[1] < wide[1]


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
