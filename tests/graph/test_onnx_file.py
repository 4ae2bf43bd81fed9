from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import TensorProto

from optkit.core.errors import InputError
from optkit.graph.onnx_file import classifier_io


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_images_come_as_floats(make_onnx: Callable[..., onnx.ModelProto], kind: int) -> None:
    model = make_onnx(classes=5, size=32)
    model.graph.input[0].type.tensor_type.elem_type = kind
    io = classifier_io(model)
    assert (io.num_classes, io.size, io.batch) == (5, 32, None)


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.DOUBLE, TensorProto.STRING, 99])
def test_other_images_are_refused_by_their_type(make_onnx: Callable[..., onnx.ModelProto], kind: int) -> None:
    model = make_onnx()
    model.graph.input[0].type.tensor_type.elem_type = kind
    with pytest.raises(InputError, match="normalised float images") as caught:
        classifier_io(model)
    assert "'input'" in caught.value.why
    assert "float32 or float16" in caught.value.hint
