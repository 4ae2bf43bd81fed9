from __future__ import annotations

import pytest

from optkit.core.errors import UsageError
from optkit.stages.cost.config import Config
from optkit.stages.cost.stage import run


def test_an_architecture(context):
    output = run(Config(arch="b0", size=224), {}, context)
    assert output.metrics["macs"] / 1e9 == pytest.approx(0.386, abs=1e-3)
    assert output.metrics["params"] == 5_288_548
    assert sum(layer["macs"] for layer in output.details["layers"]) == output.metrics["macs"]
    assert "multiply-accumulate" in output.details["unit"]
    assert output.details["not_counted"]["SiLU"] == 49


def test_size_and_classes_matter(context):
    small = run(Config(arch="lite0", size=32, num_classes=10), {}, context).metrics
    large = run(Config(arch="lite0", size=64, num_classes=1000), {}, context).metrics
    assert large["macs"] > 3 * small["macs"]
    assert large["params"] - small["params"] == 990 * 1281


def test_the_architectures_own_size(context):
    assert run(Config(arch="lite0"), {}, context).metrics["size"] == 224


def test_an_onnx_artifact(context, colour_model):
    output = run(Config(), {"model": {"m": colour_model()}}, context)
    assert output.metrics == {"macs": 16 * 16 * 9, "params": 9, "size": 16}


@pytest.mark.parametrize("arch", [None, "b0"])
def test_one_thing_at_a_time(context, colour_model, arch):
    inputs = {"model": {"m": colour_model()}} if arch else {}
    with pytest.raises(UsageError, match="one thing"):
        run(Config(arch=arch), inputs, context)


def test_unknown_architecture(context):
    with pytest.raises(UsageError, match="efficientnet_c0"):
        run(Config(arch="efficientnet_c0"), {}, context)
