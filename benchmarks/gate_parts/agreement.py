"""The interval of an agreement, a share of images, at every outcome there can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gate_parts.drop import NEGLIGIBLE, TINY, Z
from optkit.measure.statistics import wilson
from optkit.measure.verdict import judge

# Images on which the answers differ, on average, where an outcome's bound is just passed and coverage is least.
HARDEST = (1.05, 2.05, 3.05, 3.98, 4.05, 6.05, 8.05, 9.05)


@dataclass(frozen=True)
class Share:
    """A true agreement: how often its interval held it, and how often a gate wrongly passed or failed."""

    images: int
    agreement: float
    coverage: float
    wrong_pass: float
    wrong_fail: float
    width: float

    @property
    def expected_changes(self) -> float:
        """Images on which the answers differ."""
        return self.images * (1 - self.agreement)


def exact_agreement(images: Sequence[int], shares: Sequence[float]) -> list[Share]:
    """Nothing is drawn: every number of equal answers counts with its probability."""
    found = []
    for n in images:
        for share in sorted({*shares, *(1 - mean / n for mean in HARDEST)}):
            counts, weights = _outcomes(n, share)
            bounds = np.array([wilson(int(count), n, Z) for count in counts])
            passes, fails = (
                np.array([judge((low, high), limit, at_most=False) == verdict for low, high in bounds])
                # An agreement just short of the limit must not pass, one at the limit must not fail.
                for limit, verdict in ((share + TINY, "pass"), (share - TINY, "fail"))
            )
            found.append(
                Share(
                    n,
                    share,
                    coverage=float(weights @ (~passes & ~fails)),
                    wrong_pass=float(weights @ passes),
                    wrong_fail=float(weights @ fails),
                    width=float(weights @ (bounds[:, 1] - bounds[:, 0])),
                )
            )
    return found


def _outcomes(n: int, share: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers of equal answers and their probabilities."""
    equal = np.arange(n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    logs = factorials[n] - factorials - factorials[::-1]
    weights = np.exp(logs + equal * math.log(share) + (n - equal) * math.log(1 - share))
    kept = weights > NEGLIGIBLE
    return equal[kept], weights[kept] / weights[kept].sum()
