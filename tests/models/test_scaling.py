from __future__ import annotations

import pytest
import torch

from optkit.core.errors import MissingError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import ModelSpec
from optkit.measure.cost import module_cost
from optkit.models.build import build, check_arch, default_preprocess, new_spec
from optkit.models.checkpoint import module_from_state, save_checkpoint, spec_of
from optkit.models.scaling import Coefficients, ScaledArch, parse_scaled
from optkit.models.weights import check_weights, pretrained

NAME = "b0-d1.20-w1.10-r256"
# Width and depth multipliers of B1…B7 (the reference implementation of arXiv 1905.11946).
MULTIPLIERS = [(1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1)]


def meta_cost(name: str, size: int) -> dict[str, int]:
    with torch.device("meta"):
        return module_cost(build(name, 1000).eval(), size).metrics()


@pytest.mark.parametrize(("number", "width", "depth"), [(i + 1, *pair) for i, pair in enumerate(MULTIPLIERS)])
def test_the_multipliers_of_the_family_give_the_family(number: int, width: float, depth: float) -> None:
    scaled = meta_cost(f"b0-d{depth}-w{width}-r64", 64)
    assert scaled == meta_cost(f"efficientnet_b{number}", 64)


def test_the_whole_network_is_timms() -> None:
    with torch.device("meta"):
        for scaled, whole in (("b0-d1.4-w1.2-r300", "efficientnet_b3"), ("lite0-d1.2-w1.1-r260", "lite2")):
            ours, theirs = (
                {key: tensor.shape for key, tensor in build(name, 7).state_dict().items()}
                for name in (scaled, whole)
            )
            assert ours == theirs


def test_tensorflows_padding_stays() -> None:
    with torch.device("meta"):
        kinds = {type(layer).__name__ for layer in build("lite0-d1.1-w1-r64", 2).modules()}
        plain = {type(layer).__name__ for layer in build("b0-d1.1-w1-r64", 2).modules()}
    assert "Conv2dSame" in kinds
    assert "Conv2dSame" not in plain


def test_multipliers_are_the_bases_own() -> None:
    assert meta_cost("b1-d1-w1-r64", 64) == meta_cost("efficientnet_b1", 64)
    assert meta_cost("tf_efficientnet_b4-d1-w1-r64", 64) == meta_cost("tf_efficientnet_b4", 64)


def test_names_are_read_as_they_are_written() -> None:
    arch = ScaledArch("b0", 1.2, 1.1, 256)
    assert arch.name == NAME
    assert parse_scaled(NAME) == arch
    assert parse_scaled("b0") is None
    assert parse_scaled("resnet18.a1_in1k") is None


def test_preprocessing_is_the_bases_at_the_own_size() -> None:
    base = default_preprocess("b0")
    assert default_preprocess(NAME) == base.model_copy(update={"size": 256})
    assert new_spec(NAME, ("a", "b"), None, None, ()).preprocess.size == 256


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("b0-d1.2", "BASE-dDEPTH-wWIDTH-rSIZE"),
        ("b0-d1.2-w1.1-r", "BASE-dDEPTH-wWIDTH-rSIZE"),
        ("b0-d1.2-w1.1-r256-x", "BASE-dDEPTH-wWIDTH-rSIZE"),
        ("b0-d0-w1.1-r256", "above 0"),
        ("b0-d1.2-w99-r256", "at most 20"),
        ("b0-d1.2-w1.1-r8", "16 to 4096"),
        ("b0-d1.2-w1.1-r9999", "16 to 4096"),
        ("resnet18-d1.2-w1.1-r256", "EfficientNet's blocks"),
        ("lite7-d1.2-w1.1-r256", "EfficientNet's blocks"),
    ],
)
def test_a_malformed_name_is_refused(arch: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_arch(arch)
    assert arch.split("-")[0] in caught.value.message
    assert said in caught.value.why


def test_a_checkpoint_rebuilds_itself(tmp_path) -> None:
    name = "lite0-d1.10-w0.50-r32"
    spec = ModelSpec(arch=name, num_classes=2, class_names=("a", "b"), preprocess=default_preprocess(name))
    torch.manual_seed(0)
    module = build(name, 2).eval()
    save_checkpoint(module, spec, tmp_path / "m.safetensors")
    read = spec_of(tmp_path / "m.safetensors")
    assert read is not None
    again = module_from_state(read, module.state_dict(), "test")
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(module(image), again(image))


def test_nobody_has_weights_for_it() -> None:
    reporter = SilentReporter()
    name = "lite0-d1.10-w0.50-r32"
    module, origin = pretrained(name, 2, "auto", reporter)
    assert origin == "scratch"
    assert reporter.warnings[0].count("nobody has trained") == 1
    for source in ("package", "hub"):
        with pytest.raises(MissingError, match="scaled network"):
            check_weights(module, name, source)


def test_compound_coefficients() -> None:
    paper = Coefficients()
    assert paper.growth == pytest.approx(1.2 * 1.1**2 * 1.15**2)
    assert paper.scaled("b0", 224, 0) == ScaledArch("b0", 1.0, 1.0, 224)
    assert paper.scaled("b0", 224, 1).name == NAME
    assert paper.scaled("b0", 224, 2) == ScaledArch("b0", 1.44, 1.21, 296)
