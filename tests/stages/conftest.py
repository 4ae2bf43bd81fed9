"""A classifier that is right by construction, and photos for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from optkit.core.progress import SilentReporter
from optkit.core.types import Artifact, Context, Format, Manifest, ModelSpec, Preprocess

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
SIZE = 16


@pytest.fixture
def context(tmp_path: Path) -> Context:
    workdir = tmp_path / "work"
    workdir.mkdir()
    return Context(workdir, SilentReporter())


@pytest.fixture
def colour_photos(tmp_path: Path) -> Path:
    """Folder of `val/<colour>/<i>.png`, ten of each colour, and the same under `train/`; noisy."""
    rng = np.random.default_rng(0)
    for share in ("train", "val"):
        for name, colour in COLOURS.items():
            folder = tmp_path / "photos" / share / name
            folder.mkdir(parents=True)
            for index in range(10):
                pixels = np.clip(rng.normal(colour, 20, (24, 20, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def large_photos(tmp_path: Path) -> Path:
    """Class folders of one large JPEG each, which is decoded at a fraction of its size; "green" shows red."""
    rng = np.random.default_rng(0)
    for name in ("green", "red"):
        folder = tmp_path / "large" / name
        folder.mkdir(parents=True)
        pixels = rng.integers(0, 200, (640, 640, 3)).astype(np.uint8)
        pixels[..., 0] //= 2
        pixels[..., 2] //= 2
        pixels[:320, :, 0] += 140
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=80)
    return tmp_path / "large"


def _colour_onnx(batch: int | None, order: tuple[int, ...]) -> onnx.ModelProto:
    """1×1 convolution and mean: the logit of a class is the mean of its colour's channel."""
    kernel = 8 * np.eye(3, dtype=np.float32)[list(order)].reshape(3, 3, 1, 1)
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["c"], "conv", kernel_shape=[1, 1]),
        helper.make_node("ReduceMean", ["c", "axes"], ["logits"], "mean", keepdims=0),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch or "n", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch or "n", 3])
    constants = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array([2, 3]), "axes")]
    graph = helper.make_graph(nodes, "colours", [image], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def colour_model(tmp_path: Path) -> Callable[..., Artifact]:
    """`colour_model(names=…, batch=None)`: ONNX artifact whose classes are `names`, in that order."""

    def make(names: tuple[str, ...] = ("red", "green", "blue"), batch: int | None = None) -> Artifact:
        known = list(COLOURS)
        order = tuple(known.index(name) if name in known else i for i, name in enumerate(names))
        folder = tmp_path / f"model-{'-'.join(names)}-{batch}"
        folder.mkdir()
        onnx.save(_colour_onnx(batch, order), folder / Format.ONNX.filename)
        spec = ModelSpec(
            arch="onnx",
            num_classes=3,
            class_names=names,
            preprocess=Preprocess(size=SIZE, crop_mode="squash", interpolation="bilinear"),
        )
        manifest = Manifest(stage="load", key=folder.name, format=Format.ONNX, spec=spec)
        return Artifact(folder.name, folder, manifest)

    return make
