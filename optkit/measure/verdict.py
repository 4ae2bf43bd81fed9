"""What an interval says about a limit, and how much more data would decide where it says nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Verdict = Literal["pass", "fail", "cannot tell"]
Interval = tuple[float, float]

MAX_IMAGES = 1_000_000  # beyond these, more data is no advice
MAX_SECONDS = 24 * 3600.0


def judge(interval: Interval, limit: float, at_most: bool) -> Verdict:
    """Whether all of the interval keeps the limit, breaks it, or neither."""
    low, high = interval if at_most else (-interval[1], -interval[0])
    bound = limit if at_most else -limit
    return "pass" if high <= bound else "fail" if low > bound else "cannot tell"


def overall(verdicts: list[Verdict]) -> Verdict:
    """Of all criteria together."""
    order: tuple[Verdict, ...] = ("fail", "cannot tell", "pass")
    return next(one for one in order if one in verdicts)


def images_to_decide(
    interval: Callable[[float], Interval], limit: float, at_most: bool, n: int
) -> int | None:
    """How many images more, if the estimate stays, would put the whole interval on one side of the limit.

    `interval(k)` is what k·n images would give. None: more than a million.
    """

    def decides(times: float) -> bool:
        return judge(interval(times), limit, at_most) != "cannot tell"

    most = MAX_IMAGES / n
    if most <= 1 or not decides(most):
        return None
    low, high = 1.0, most
    while (high - low) * n > 1:
        middle = (low + high) / 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return math.ceil(high * n) - n


def seconds_to_decide(estimate: float, interval: Interval, limit: float, seconds: float) -> float | None:
    """How many seconds more of timing would do, if the estimate stays; `seconds` gave this interval.

    An interval shrinks with the root of the time. None: more than a day.
    """
    gap = abs(limit - estimate)
    reach = interval[1] - estimate if limit > estimate else estimate - interval[0]
    if not gap or not math.isfinite(reach):
        return None
    more = seconds * ((reach / gap) ** 2 - 1)
    return more if more <= MAX_SECONDS else None
