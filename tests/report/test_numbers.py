from __future__ import annotations

from typing import Any

import pytest

from optkit.report.numbers import is_number


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 10**400, -(10**400)])
def test_what_no_figure_can_be(value: Any) -> None:
    assert not is_number(value)


@pytest.mark.parametrize("value", [0, -1.5, 10**300])
def test_numbers(value: Any) -> None:
    assert is_number(value)
