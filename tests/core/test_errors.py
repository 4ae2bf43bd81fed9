"""What errors say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from optkit.core.errors import first_problem


class Photo(BaseModel):
    """Outside data."""

    sizes: tuple[int, ...]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"sizes": [1, "x", "y"]}, "sizes.1: Input should be a valid integer"),
        (3, "Input should be a valid dictionary"),
    ],
)
def test_the_first_problem_and_its_place(value: Any, expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Photo.model_validate(value)
    assert first_problem(caught.value).startswith(expected)
