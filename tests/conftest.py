"""Fixtures that several rooms use."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

# What the tests start in processes of their own would else compile the package anew each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

MakeOnnx = Callable[..., onnx.ModelProto]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Networks this small are quicker in one thread, and a measurement before may have left more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _collect_little() -> None:
    """A measurement collects garbage first, which would look through the packages that the tests before imported."""
    gc.collect()
    gc.freeze()


def small_classifier(
    path: Path | None = None,
    classes: int = 5,
    size: int | None = 32,
    batch: int | None = None,
    head: str = "Gemm",
) -> onnx.ModelProto:
    """Conv → Relu → mean → `head` with weights that give logits of order 1; `None` leaves an axis open."""
    rng = np.random.default_rng(0)
    channels = 16 if head == "Gemm" else classes
    weights = {
        "kernel": rng.standard_normal((channels, 3, 3, 3)).astype(np.float32) / 5,
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node(
            "ReduceMean", ["r", "axes"], ["logits" if head == "none" else "m"], "mean", keepdims=0
        ),
    ]
    if head == "Gemm":
        weights["weight"] = rng.standard_normal((16, classes)).astype(np.float32)
        nodes.append(helper.make_node("Gemm", ["m", "weight"], ["logits"], "head"))
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(
                "input", TensorProto.FLOAT, [batch or "n", 3, size or "h", size or "w"]
            )
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch or "n", classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    if path:
        onnx.save(model, path)
    return model


@pytest.fixture
def make_onnx() -> MakeOnnx:
    """`make_onnx(path=None, classes=5, size=32, batch=None, head="Gemm")`: a tiny classifier."""
    return small_classifier
