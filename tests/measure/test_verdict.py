from __future__ import annotations

import math

import pytest

from optkit.measure.verdict import images_to_decide, judge, overall, seconds_to_decide


@pytest.mark.parametrize(
    ("interval", "at_most", "at_least"),
    [
        ((1, 2), "pass", "fail"),
        ((1, 3), "pass", "cannot tell"),
        ((2, 4), "cannot tell", "cannot tell"),
        ((3, 4), "cannot tell", "pass"),
        ((4, 5), "fail", "pass"),
    ],
)
def test_the_whole_interval_decides(interval, at_most, at_least):
    assert judge(interval, 3, at_most=True) == at_most
    assert judge(interval, 3, at_most=False) == at_least


def test_one_failure_fails_all_and_one_doubt_doubts_all():
    assert overall(["pass", "cannot tell", "fail"]) == "fail"
    assert overall(["pass", "cannot tell"]) == "cannot tell"
    assert overall(["pass", "pass"]) == "pass"


def around(estimate: float, width: float):
    """An interval that shrinks with the root of the sample."""
    return lambda times: (estimate - width / math.sqrt(times), estimate + width / math.sqrt(times))


@pytest.mark.parametrize(("estimate", "limit"), [(1.0, 1.5), (1.0, 0.5)])
def test_images_to_decide_are_the_fewest_that_do(estimate, limit):
    assert images_to_decide(around(estimate, 1.0), limit, True, 1000) == pytest.approx(3000, abs=2)


def test_no_advice_where_a_million_images_would_not_do():
    assert images_to_decide(around(1.0, 1.0), 1.0, True, 1000) is None
    assert images_to_decide(around(1.0, 1.0), 1.02, True, 1000) is None
    assert images_to_decide(around(1.0, 1.0), 1.05, True, 1000) is not None
    assert images_to_decide(around(1.0, 1.0), 1.5, True, 2_000_000) is None


def test_images_are_asked_for_only_where_they_change_the_verdict():
    """An upper bound that stays at the limit breaks nothing, and keeps a limit from above."""

    def up_to_one(times: float) -> tuple[float, float]:
        return 1 - 0.01 / times, 1.0

    assert images_to_decide(up_to_one, 1.0, False, 1000) is None
    assert images_to_decide(up_to_one, 0.995, False, 1000) == pytest.approx(1000, abs=2)


def test_seconds_to_decide():
    assert seconds_to_decide(1.0, (0.8, 1.2), 1.1, 5) == pytest.approx(15)
    assert seconds_to_decide(1.0, (0.7, 1.2), 0.9, 5) == pytest.approx(40)


def test_no_advice_where_a_day_would_not_do():
    assert seconds_to_decide(1.0, (0.8, 1.2), 1.0, 5) is None
    assert seconds_to_decide(1.0, (0.8, 1.2), 1.0001, 5) is None
    assert seconds_to_decide(1.0, (-math.inf, math.inf), 1.1, 5) is None
