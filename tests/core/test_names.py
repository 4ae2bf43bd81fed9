from __future__ import annotations

import pytest

from optkit.core.names import short_names


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["student"], ["student"]),
        (["/a/b/model.onnx"], ["model.onnx"]),
        (["runs/a/onnx", "runs/b/onnx"], ["a/onnx", "b/onnx"]),
        (["runs/a/onnx", "int8"], ["onnx", "int8"]),
        (["onnx", "runs/onnx"], ["onnx", "runs/onnx"]),
        (["./x", "y/"], ["x", "y"]),
    ],
)
def test_what_tells_them_apart_is_left(names, short):
    assert list(short_names(names).values()) == short
