"""What every runtime promises. A new file in optkit/runtimes is tested by being there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from optkit.core import discover
from optkit.core.errors import InputError
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Preprocess
from optkit.runtimes.base import DEFAULTS, PACKAGE, SessionOptions

NAMES = [
    pytest.param(name, marks=pytest.mark.gpu) if name == DEFAULTS[Format.ENGINE] else name
    for name in discover.names(PACKAGE)
]
SIZE, CLASSES = 32, 5


class SmallClassifier(torch.nn.Module):
    """The torch twin of the fixture `make_onnx`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.kernel = torch.nn.Parameter(torch.tensor(weights["kernel"]))
        self.weight = torch.nn.Parameter(torch.tensor(weights["weight"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.conv2d(x, self.kernel, padding=1).relu().mean((2, 3)) @ self.weight


@pytest.fixture
def artifact(tmp_path, make_onnx):
    """`artifact(format)`: the small classifier as an artifact."""

    def make(wanted: Format) -> Artifact:
        spec = ModelSpec(
            arch="small",
            num_classes=CLASSES,
            class_names=tuple("abcde"),
            preprocess=Preprocess(size=SIZE),
        )
        if wanted == Format.ONNX:
            make_onnx(tmp_path / wanted.filename, classes=CLASSES, size=SIZE)
        elif wanted == Format.ENGINE:
            from optkit.runtimes import tensorrt

            make_onnx(tmp_path / "model.onnx", classes=CLASSES, size=SIZE)
            tensorrt.build_engine(
                tmp_path / "model.onnx", tmp_path / wanted.filename, "portable", max_batch=4, size=SIZE
            )
        return Artifact("key", tmp_path, Manifest(stage="load", key="key", format=wanted, spec=spec))

    return make


@pytest.fixture
def options(make_onnx) -> SessionOptions:
    return SessionOptions(load_module=lambda _: SmallClassifier(make_onnx(classes=CLASSES)).eval(), threads=1)


def load(name: str):
    return discover.load(PACKAGE, name, "runtime")


def available(name: str):
    runtime = load(name)
    if reason := runtime.unavailable():
        pytest.skip(f"{name}: {reason}")
    return runtime


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_executes_and_whether_it_can(name):
    runtime = load(name)
    assert runtime.FORMATS
    assert set(runtime.FORMATS) <= {Format.TORCH, Format.ONNX, Format.ENGINE}
    reason = runtime.unavailable()
    assert reason is None or len(reason) > 20


def test_every_model_format_has_a_default_that_executes_it():
    assert set(DEFAULTS) == {one for one in Format if one.is_model}
    assert all(wanted in load(name).FORMATS for wanted, name in DEFAULTS.items())


@pytest.mark.parametrize("name", NAMES)
def test_runs_any_batch_and_agrees_with_torch(name, artifact, options):
    runtime = available(name)
    rng = np.random.default_rng(1)
    computes = getattr(runtime, "COMPUTES", True)  # False: the answer does not depend on the model file
    for wanted in runtime.FORMATS if computes else (Format.TORCH,):
        session = runtime.open_session(artifact(wanted), options)
        for n in (3, 1, 2):
            pixels = rng.standard_normal((n, 3, SIZE, SIZE), np.float32)
            kept = pixels.copy()
            logits = session.run(pixels)
            assert logits.shape == (n, CLASSES)
            assert logits.dtype == np.float32
            np.testing.assert_array_equal(pixels, kept)
            if computes:
                expected = options.load_module(None)(torch.from_numpy(pixels)).detach().numpy()
                assert np.abs(expected).max() > 0.1
                on_gpu = "cuda" in str(session.facts) or "tf32" in session.facts
                np.testing.assert_allclose(logits, expected, atol=5e-3 if on_gpu else 1e-4)
        session.close()


@pytest.mark.parametrize("name", NAMES)
def test_answers_stay_when_the_next_batch_runs(name, artifact, options):
    runtime = available(name)
    session = runtime.open_session(artifact(runtime.FORMATS[0]), options)
    first = session.run(np.ones((1, 3, SIZE, SIZE), np.float32))
    kept = first.copy()
    session.run(np.zeros((1, 3, SIZE, SIZE), np.float32))
    np.testing.assert_array_equal(first, kept)
    session.close()


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_plain_and_say_device_and_precision(name, artifact, options):
    runtime = available(name)
    session = runtime.open_session(artifact(runtime.FORMATS[0]), options)
    assert {"device", "precision"} <= set(session.facts)
    Manifest(stage="bench", key="k", format=Format.RESULT, details=session.facts).model_dump_json()
    session.close()


@pytest.mark.parametrize("name", NAMES)
def test_refuses_a_broken_onnx_file(name, artifact, options):
    runtime = available(name)
    if Format.ONNX not in runtime.FORMATS or not getattr(runtime, "COMPUTES", True):
        pytest.skip("reads no ONNX files")
    broken = artifact(Format.ONNX)
    content = Path(broken.file).read_bytes()
    broken.file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="refuses"):
        runtime.open_session(broken, options)
