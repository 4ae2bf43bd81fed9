from __future__ import annotations

from dataclasses import replace

import pytest

from optkit.core.errors import InputError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import Context, Format, Precision
from optkit.measure.estimate_setups import TOO_FAR_OFF
from optkit.stages.estimate.config import Config
from optkit.stages.estimate.stage import run


class Listener(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def listened(context: Context) -> tuple[Context, list[str]]:
    reporter = Listener()
    return replace(context, reporter=reporter), reporter.warnings


def figures(config: Config, context: Context) -> dict[str, float]:
    return {row["setup"]: row["images_per_s"] for row in run(config, {}, context).details["estimates"]}


def test_an_architecture_on_all_gpus(context):
    output = run(Config(arch="b0", size=224), {}, context)
    assert output.metrics["macs"] / 1e9 == pytest.approx(0.386, abs=1e-3)
    rows = output.details["estimates"]
    assert {row["gpu"] for row in rows} == {"rtx5090", "rtx4090", "rtx3090"}
    for row in rows:
        assert row["word"] == "estimate"
        assert row["range_90"][0] < row["images_per_s"] < row["range_90"][1]
        assert row["median_error"] <= 0.10
        assert row["mape"] <= 0.13
        assert row["n_models"] > 1000
        assert row["ms_per_image"] == pytest.approx(1000 / row["images_per_s"])


def test_gpu_mode_and_setup_choose(context):
    assert list(figures(Config(arch="lite0", gpu=("rtx4090",), compiled=False), context)) == [
        "rtx4090-nchw-eager-2.9"
    ]
    assert list(figures(Config(arch="lite0", setup=("rtx3090-nhwc-eager-2.4",)), context)) == [
        "rtx3090-nhwc-eager-2.4"
    ]


def test_size_and_classes_matter(context):
    (usual,), (small,), (few,) = (
        figures(Config(arch="lite0", gpu=("rtx3090",), size=size, num_classes=classes), context).values()
        for size, classes in ((224, None), (112, None), (224, 2))
    )
    assert small > 2 * usual
    assert usual < few < 1.1 * usual


def test_an_onnx_artifact_and_its_precision(listened, colour_model):
    context, warnings = listened
    artifact = colour_model()
    run(Config(gpu=("rtx3090",)), {"model": {"m": artifact}}, context)
    assert not any("INT8" in warning for warning in warnings)
    manifest = artifact.manifest.model_copy(update={"precision": Precision.INT8})
    quantised = replace(artifact, manifest=manifest)
    output = run(Config(gpu=("rtx3090",)), {"model": {"m": quantised}}, context)
    assert output.metrics["macs"] == 16 * 16 * 9
    assert any("INT8" in warning for warning in warnings)


def test_what_is_unlike_all_calibrated_networks_warns(listened):
    context, warnings = listened
    output = run(Config(arch="vgg16", size=32, gpu=("rtx5090",)), {}, context)
    assert output.details["estimates"][0]["beyond"]
    assert any("extrapolated" in warning and "'weights'" in warning for warning in warnings)


def test_a_gpu_without_compiled_throughputs_is_named(listened):
    context, warnings = listened
    run(Config(arch="lite0", gpu=("rtx3090", "rtx4090"), compiled=True), {}, context)
    assert any("rtx3090" in warning for warning in warnings)


def test_an_engine_cannot_be_counted(context, colour_model):
    artifact = colour_model()
    manifest = artifact.manifest.model_copy(update={"format": Format.ENGINE})
    with pytest.raises(InputError, match="engine") as error:
        run(Config(), {"model": {"m": replace(artifact, manifest=manifest)}}, context)
    assert "ONNX" in error.value.hint


@pytest.mark.parametrize("arch", [None, "b0"])
def test_one_thing_at_a_time(context, colour_model, arch):
    inputs = {"model": {"m": colour_model()}} if arch else {}
    with pytest.raises(UsageError, match="one thing"):
        run(Config(arch=arch), inputs, context)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"gpu": ("rtx4080",)}, "rtx4080"),
        ({"setup": ("rtx3090-nchw-eager-9",)}, "rtx3090-nchw-eager-9"),
        ({"gpu": ("rtx3090",), "compiled": True}, "rtx3090 with torch.compile"),
        ({"gpu": ("rtx3090",), "setup": ("rtx3090-nchw-eager-2.4",)}, "A setup says its GPU"),
    ],
)
def test_what_is_not_calibrated_is_refused(options, complaint):
    with pytest.raises(UsageError, match=complaint):
        Config(arch="b0", **options).check()


def test_classes_beside_a_model_are_refused():
    with pytest.raises(UsageError, match="its own number of classes"):
        Config(num_classes=10).check()


def test_the_fixed_size_of_a_file_is_its_size(context, colour_model):
    with pytest.raises(UsageError, match="16×16"):
        run(Config(size=32), {"model": {"m": colour_model()}}, context)


def test_models_of_one_architecture_keep_their_names(context, colour_model):
    output = run(Config(gpu=["rtx4090"]), {"model": {"runs/pruned": colour_model()}}, context)
    assert {row["name"] for row in output.details["estimates"]} == {"pruned"}


@pytest.mark.parametrize("setup", TOO_FAR_OFF)
def test_a_setup_that_is_too_far_off_is_not_offered(setup):
    with pytest.raises(UsageError, match=f"{setup}' are too far off") as error:
        Config(setup=[setup]).check()
    assert error.value.hint
