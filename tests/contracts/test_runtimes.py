"""What every runtime promises in each of its variants. A new file in optkit/runtimes is tested by being there."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from optkit.core import discover
from optkit.core.errors import InputError
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Preprocess
from optkit.runtimes.base import (
    DEFAULTS,
    PACKAGE,
    Session,
    SessionOptions,
    open_artifact,
    runtime_names,
    split_runtime,
    why_unavailable,
)

ON_GPU = ("onnxruntime:cuda", "onnxruntime:tensorrt", "tensorrt")
MARKS = dict.fromkeys(ON_GPU, pytest.mark.gpu) | {"pytorch:compiled": pytest.mark.slow}
NAMES = [pytest.param(name, marks=MARKS.get(name, ())) for name in runtime_names()]
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
    return discover.load(PACKAGE, split_runtime(name)[0], "runtime")


def available(name: str):
    """The module of a runtime that can run here, else the test is skipped."""
    if reason := why_unavailable(name):
        pytest.skip(f"{name}: {reason}")
    return load(name)


@pytest.fixture
def opened(artifact, options):
    """`opened(name, format=None)`: a session, or a skipped test."""
    sessions = []

    def make(name: str, wanted: Format | None = None) -> Session:
        runtime = available(name)
        chosen = replace(options, needs_answers=False)
        sessions.append(open_artifact(artifact(wanted or runtime.FORMATS[0]), name, chosen))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def computes(name: str) -> bool:
    """False where the answer does not depend on the model file."""
    return getattr(load(name), "COMPUTES", True)


def pixels_of(count: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE), np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_executes_and_whether_it_can(name):
    runtime = load(name)
    assert runtime.FORMATS
    assert set(runtime.FORMATS) <= {Format.TORCH, Format.ONNX, Format.ENGINE}
    reason = why_unavailable(name)
    assert reason is None or len(reason) > 20
    assert all(len(text) > 10 for text in runtime.VARIANTS.values())
    assert runtime.IMPORTS
    assert all(package.isidentifier() for package in runtime.IMPORTS)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_packages_are_imported_when_they_are_needed(name):
    code = (
        "import sys\n"
        "from optkit.runtimes.base import import_packages\n"
        f"before = {name!r} in sys.modules\n"
        f"import_packages({name!r})\n"
        f"print(before, {name!r} in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "True"]


def test_every_model_format_has_a_default_that_executes_it():
    assert set(DEFAULTS) == {one for one in Format if one.is_model}
    assert all(wanted in load(name).FORMATS for wanted, name in DEFAULTS.items())


@pytest.mark.parametrize("name", NAMES)
def test_runs_any_batch_and_agrees_with_torch(name, opened, options):
    for wanted in available(name).FORMATS if computes(name) else (Format.TORCH,):
        session = opened(name, wanted)
        for n in (3, 1):
            pixels = pixels_of(n)
            kept = pixels.copy()
            logits = session.run(pixels)
            assert logits.shape == (n, CLASSES)
            assert logits.dtype == np.float32
            np.testing.assert_array_equal(pixels, kept)
            if computes(name):
                expected = options.load_module(None)(torch.from_numpy(pixels)).detach().numpy()
                assert np.abs(expected).max() > 0.1
                on_gpu = "cuda" in str(session.facts) or "tf32" in session.facts
                np.testing.assert_allclose(logits, expected, atol=5e-3 if on_gpu else 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_answers_stay_when_the_next_batch_runs(name, opened):
    session = opened(name)
    first = session.run(np.ones((1, 3, SIZE, SIZE), np.float32))
    kept = first.copy()
    session.run(np.zeros((1, 3, SIZE, SIZE), np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_plain_and_say_device_precision_and_streams(name, opened):
    facts = opened(name).facts
    assert {"device", "precision"} <= set(facts)
    assert facts["streams"] >= 1
    Manifest(stage="bench", key="k", format=Format.RESULT, details=facts).model_dump_json()


@pytest.mark.parametrize("name", NAMES)
def test_streams_in_two_threads_answer_as_one_does(name, opened):
    """Each thread has a caller and images of its own; both begin at once, and take turns many times."""
    session = opened(name)
    images = [pixels_of(1, seed) for seed in (1, 2)]
    expected = [session.run(one) for one in images]
    assert computes(name) == bool(np.abs(expected[0] - expected[1]).max() > 1e-3)
    callers = [session.stream() for _ in images]
    barrier = threading.Barrier(2)

    def work(index: int) -> float:
        barrier.wait(10)
        answers = [callers[index](images[index]) for _ in range(30)]
        return max(np.abs(answer - expected[index]).max() for answer in answers)

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(work, (0, 1))) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_refuses_a_broken_onnx_file(name, artifact, options):
    runtime = available(name)
    if Format.ONNX not in runtime.FORMATS or not computes(name):
        pytest.skip("reads no ONNX files")
    broken = artifact(Format.ONNX)
    content = Path(broken.file).read_bytes()
    broken.file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="refuses"):
        open_artifact(broken, name, options)
