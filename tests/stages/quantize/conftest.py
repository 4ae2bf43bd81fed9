"""The ladder begins and ends with a comparison of speeds, and tests of other things need no good measurement of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from optkit.measure import latency
from optkit.stages.quantize import float_prefix, speed


@pytest.fixture(scope="package", autouse=True)
def short_timing() -> Iterator[None]:
    """As short as it can be, and chance has no say in what stays in floating point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "SECONDS", 0.005)
        patch.setattr(speed, "ROUNDS", 3)
        patch.setattr(float_prefix, "ROUNDS", 3)
        patch.setattr(float_prefix, "FIRST_ROUNDS", 2)
        patch.setattr(float_prefix, "CUTS", 0)
        patch.setattr(latency, "BURST_MS", 2.0)
        yield
