from __future__ import annotations

import math

import numpy as np
import pytest

from optkit.core.score import score_interval

Z = 1.959964


def test_without_a_change_the_interval_has_a_closed_form():
    """The score test then is n·d / (1 + d) = z², from d = z² / (n + z²) on."""
    for n in (20, 200, 5000):
        low, high = score_interval(0, 0, n, Z)
        assert high == pytest.approx(Z * Z / (n + Z * Z))
        assert low == pytest.approx(-high)


def test_of_many_changes_it_is_the_textbook_one():
    low, high = score_interval(3000, 2000, 100_000, Z)
    spread = Z * math.sqrt((0.05 - 0.01**2) / 100_000)
    assert (low, high) == (pytest.approx(0.01 - spread, rel=0.01), pytest.approx(0.01 + spread, rel=0.01))


def test_directions_are_alike():
    low, high = score_interval(7, 2, 300, Z)
    assert score_interval(2, 7, 300, Z) == (pytest.approx(-high), pytest.approx(-low))


def test_it_stays_within_the_possible():
    assert score_interval(5, 0, 5, Z)[1] == pytest.approx(1)
    assert score_interval(0, 5, 5, Z)[0] == pytest.approx(-1)


def test_more_of_the_same_narrows_it():
    widths = [np.diff(score_interval(3 * k, k, 100 * k, Z))[0] for k in (1, 1.5, 4, 16)]
    assert widths == sorted(widths, reverse=True)
    assert widths[2] / widths[3] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(("n", "flips", "drop"), [(500, 0.02, 0.0), (2000, 0.01, 0.005), (1000, 0.05, 0.03)])
def test_it_covers_the_truth_and_rarely_passes_what_breaks_the_limit(n, flips, drop):
    """At the limit: 2.5 of 100 wrong passes are meant, more than 5 would break the promise of the gate."""
    rng = np.random.default_rng(0)
    shares = [(flips + drop) / 2, (flips - drop) / 2, 1 - flips]
    draws, counts = np.unique(rng.multinomial(n, shares, 4000), axis=0, return_counts=True)
    bounds = np.array([score_interval(lost, won, n, Z) for lost, won, _ in draws])
    covered = (bounds[:, 0] <= drop) & (drop <= bounds[:, 1])
    assert 0.93 <= (covered * counts).sum() / 4000 <= 0.97
    assert ((bounds[:, 1] < drop) * counts).sum() / 4000 <= 0.05
