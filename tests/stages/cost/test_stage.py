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
    assert output.metrics["activations"] / 1e6 == pytest.approx(6.75, abs=0.01)
    assert output.metrics["bytes"] == sum(layer["bytes"] for layer in output.details["layers"])
    assert "weights, inputs and outputs" in output.details["units"]["bytes"]


def test_the_formulas_beside_the_count(context):
    details = run(Config(arch="b0", size=64), {}, context).details
    first, *reasons, last = details["formula"]
    for name in ("flops", "params"):
        assert first[name] + sum(row[name] for row in reasons) == last[name]
    assert first["flops"] == sum(layer["formula_flops"] for layer in details["layers"])
    assert first["params"] == sum(layer["formula_params"] for layer in details["layers"])
    stem = details["layers"][0]
    assert stem["formula_flops"] == 2 * 64 * 64 * 3 * 32 * 9
    assert stem["why"] == "stride, padding ×0.25, no bias"
    assert "squeeze-and-excitation" in details["never_counted"]
    assert details["separable_flops"] < last["flops"]


def test_a_scaled_network(context):
    output = run(Config(arch="b0-d1.20-w1.10-r64"), {}, context)
    assert output.metrics["size"] == 64
    assert output.metrics["params"] == 9_109_994  # B2's


def test_size_and_classes_matter(context):
    small = run(Config(arch="lite0", size=32, num_classes=10), {}, context).metrics
    large = run(Config(arch="lite0", size=64, num_classes=1000), {}, context).metrics
    assert large["macs"] > 3 * small["macs"]
    assert large["params"] - small["params"] == 990 * 1281


def test_the_architectures_own_size(context):
    assert run(Config(arch="lite0"), {}, context).metrics["size"] == 224


def test_an_onnx_artifact(context, colour_model):
    output = run(Config(), {"model": {"m": colour_model()}}, context)
    moved = {"weight_bytes": 4 * 9, "activation_bytes": 4 * (3 + 3) * 16 * 16}
    assert output.metrics == {
        "macs": 16 * 16 * 9,
        "params": 9,
        "activations": 3 * 16 * 16,
        **moved,
        "bytes": sum(moved.values()),
        "macs_per_byte": 16 * 16 * 9 / sum(moved.values()),
        "size": 16,
    }


@pytest.mark.parametrize("arch", [None, "b0"])
def test_one_thing_at_a_time(context, colour_model, arch):
    inputs = {"model": {"m": colour_model()}} if arch else {}
    with pytest.raises(UsageError, match="one thing"):
        run(Config(arch=arch), inputs, context)


def test_unknown_architecture(context):
    with pytest.raises(UsageError, match="efficientnet_c0"):
        run(Config(arch="efficientnet_c0"), {}, context)


def test_classes_beside_a_model_are_refused():
    Config(arch="b0", num_classes=10).check()
    with pytest.raises(UsageError, match="its own number of classes"):
        Config(num_classes=10).check()


def test_the_fixed_size_of_a_file_is_its_size(context, colour_model):
    with pytest.raises(UsageError, match="16×16"):
        run(Config(size=32), {"model": {"m": colour_model()}}, context)
