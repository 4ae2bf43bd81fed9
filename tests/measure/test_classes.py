from __future__ import annotations

import pytest

from optkit.core.errors import InputError
from optkit.measure.classes import map_classes


@pytest.mark.parametrize(
    ("data", "model", "classes", "by"),
    [
        (("a", "b"), ("a", "b"), [0, 1], "name"),
        (("b", "a"), ("a", "b"), [1, 0], "name"),
        (("b",), ("a", "b", "c"), [1], "name"),
        (("0", "17"), tuple(f"n{i}" for i in range(20)), [0, 17], "index"),
        (("cat", "dog"), ("0", "1"), [0, 1], "order"),
    ],
)
def test_mapping(data, model, classes, by):
    found = map_classes(data, model)
    assert (found.classes.tolist(), found.by) == (classes, by)


@pytest.mark.parametrize(
    ("data", "model", "named"),
    [
        (("cat", "dgo"), ("cat", "dog"), "'dgo'"),
        (("a", "b", "c"), ("cat", "dog"), "3 classes, the model 2"),
        (("0", "30"), tuple(f"n{i}" for i in range(20)), "2 classes, the model 20"),
        (("a", "b", "c"), ("0", "1"), "3 classes, the model 2"),
    ],
)
def test_classes_that_do_not_match_name_both_sides(data, model, named):
    with pytest.raises(InputError) as caught:
        map_classes(data, model)
    text = caught.value.message + caught.value.why
    assert named in text
    assert data[0] in text
    assert model[0] in text
    assert caught.value.hint
