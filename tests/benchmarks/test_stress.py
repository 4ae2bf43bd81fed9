"""The stress variant answers the same, and its channels are as far apart as asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest

from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.graph.rescale import channel_groups
from tests.small_networks import Builder, residual_network, textured_images

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    import stress

    yield stress
    sys.modules.pop("stress")


@pytest.mark.parametrize("ratio", [10.0, 100.0])
def test_channels_are_spread_and_logits_stay(script: ModuleType, ratio: float) -> None:
    b = Builder()
    x = b.clip(b.conv(b.conv(b.clip(b.conv("input", 3, 8)), 8, 16, kernel=1), 16, 4))
    x = b.op("Gemm", b.op("Flatten", b.op("GlobalAveragePool", x)), b.constant(np.eye(4, dtype=np.float32)))
    model = prepare(b.model(x, 4, None, 17))
    (group,) = channel_groups(GraphView(model))
    hard, again, other = (script.stress(model, seed, ratio) for seed in (0, 0, 1))
    pixels = textured_images(3)
    logits = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input": pixels}
        )[0]
        for m in (model, hard)
    ]
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-5)
    views = [GraphView(m) for m in (model, hard)]
    weights = [view.constant(view.producer[group.tensors[0]].input[1]) for view in views]
    factors = (weights[1] / weights[0])[:, 0, 0, 0]
    assert factors.max() / factors.min() == pytest.approx(ratio, rel=1e-4)
    assert hard.SerializeToString() == again.SerializeToString() != other.SerializeToString()


def test_a_model_without_bottlenecks_is_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="no linear bottleneck"):
        script.stress(prepare(residual_network()), 0)
