"""New heads and drop-path: every option changes the network, and every head travels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch_pruning as tp
from pydantic import ValidationError
from torch import nn

from optkit.core.errors import InputError, UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import HeadSpec, ModelSpec, Preprocess
from optkit.graph.onnx_file import write_onnx
from optkit.measure.cost import module_cost
from optkit.models import weights
from optkit.models.build import build, classifier, new_spec, rebuild
from optkit.models.checkpoint import module_from_state, read_state, save_checkpoint, spec_of
from optkit.models.config import HeadConfig, NewModelConfig
from optkit.models.head import init_head, last_linear, make_head
from optkit.models.weights import pretrained
from optkit.stages.export.parity import check_parity
from optkit.stages.export.stage import to_onnx
from optkit.stages.prune.channels import find_groups, pruned_spec, remove_channels

SIZE = 64
ARCHES = ("test_efficientnet", "test_resnet")
HEADS = {
    "avg": HeadSpec(pooling="avg"),
    "max": HeadSpec(pooling="max"),
    "catavgmax": HeadSpec(pooling="catavgmax"),
    "flatten": HeadSpec(pooling="flatten"),
    "hidden": HeadSpec(hidden=(24, 16), dropout=0.5),
    "flatten and hidden": HeadSpec(pooling="flatten", hidden=(24,), dropout=0.5),
    "dropout": HeadSpec(dropout=0.5),
}
NO_CATAVGMAX = ("test_convnext", "mobilenetv3_small_050")
TAKES = [(arch, name) for arch in ARCHES for name in HEADS]
TAKES += [(arch, name) for arch in NO_CATAVGMAX for name in HEADS if name != "catavgmax"]


def spec(arch: str, head: HeadSpec | None) -> ModelSpec:
    names = ("a", "b", "c")
    return ModelSpec(arch=arch, num_classes=3, class_names=names, preprocess=Preprocess(size=SIZE), head=head)


def images(count: int = 2, size: int = SIZE) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def features(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the training room caches."""
    found: torch.Tensor = module.eval().forward_head(module.forward_features(x), pre_logits=True)
    return found


@torch.inference_mode()
@pytest.mark.parametrize("arch", ARCHES)
def test_pooling_decides_what_the_head_sees(arch: str) -> None:
    modules = {
        name: build(arch, 3, HeadSpec(pooling=name), SIZE).eval() for name in ("avg", "max", "catavgmax")
    }
    flat = build(arch, 3, HeadSpec(pooling="flatten"), SIZE)
    for module in modules.values():
        module.load_state_dict(flat.state_dict(), strict=False)
    found = {name: features(module, images()) for name, module in modules.items()}
    feature_map = features(flat, images())
    assert feature_map.ndim == 4
    assert feature_map.shape[-1] > 1
    assert torch.allclose(found["avg"], feature_map.mean((2, 3)), atol=1e-5)
    assert torch.allclose(found["max"], feature_map.amax((2, 3)))
    assert torch.allclose(found["catavgmax"], torch.cat([found["avg"], found["max"]], 1), atol=1e-5)
    assert last_linear(classifier(flat, arch)).in_features == feature_map[0].numel()


@torch.inference_mode()
@pytest.mark.parametrize(("arch", "name"), TAKES)
def test_the_head_is_all_that_follows_the_features(arch: str, name: str) -> None:
    head = HEADS[name]
    module = build(arch, 3, head, SIZE)
    found = module.get_classifier()
    assert found is classifier(module, arch)
    assert torch.equal(found(features(module, images())), module(images()))
    assert last_linear(found).out_features == 3
    assert rebuild(spec(arch, head)).state_dict().keys() == module.state_dict().keys()


def test_hidden_layers_and_dropout_come_in_order() -> None:
    kinds = [type(layer).__name__ for layer in make_head(8, 3, HEADS["hidden"])]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    widths = [layer.in_features for layer in make_head(8, 3, HEADS["hidden"]) if isinstance(layer, nn.Linear)]
    assert widths == [8, 24, 16]
    assert [type(layer).__name__ for layer in make_head(8, 3, HEADS["dropout"])] == ["Dropout", "Linear"]
    assert isinstance(make_head(8, 3, HEADS["flatten"])[0], nn.Flatten)


@pytest.mark.parametrize("name", ["hidden", "dropout"])
def test_dropout_acts_while_training_only(name: str) -> None:
    head = build("test_resnet", 3, HEADS[name], SIZE).get_classifier()
    x = torch.ones(4, head[-1].in_features if name == "dropout" else head[0].in_features)
    assert not torch.equal(head.train()(x), head(x))
    assert torch.equal(head.eval()(x), head(x))


def test_no_head_and_an_empty_head_are_the_architecture_s_own() -> None:
    assert HeadConfig().spec() is None
    own, empty = build("test_resnet", 3), build("test_resnet", 3, HeadSpec())
    assert isinstance(empty.get_classifier(), nn.Linear)
    assert own.state_dict().keys() == empty.state_dict().keys()


@pytest.mark.parametrize("how", ["zero", "xavier", "he"])
def test_the_start_of_a_head(how: str) -> None:
    torch.manual_seed(0)
    head = make_head(400, 200, HeadSpec(hidden=(300,)))
    init_head(head, how)
    he, xavier = math.sqrt(2 / 400), math.sqrt(2 / 700)
    assert head[0].weight.std().item() == pytest.approx(xavier if how == "xavier" else he, rel=0.02)
    last = {"zero": 0, "xavier": math.sqrt(2 / 500), "he": math.sqrt(2 / 300)}[how]
    assert head[-1].weight.std().item() == pytest.approx(last, rel=0.02)
    assert not head[0].bias.any()
    assert not head[-1].bias.any()


def test_the_start_of_a_single_layer() -> None:
    head = nn.Linear(400, 3)
    init_head(head, "zero")
    assert not head.weight.any()
    assert not head.bias.any()


def test_vgg_s_own_wide_layers_go_with_its_pooling() -> None:
    with torch.device("meta"):
        own = build("vgg16", 2, HeadSpec(dropout=0.5))
        flat = build("vgg16", 2, HeadSpec(pooling="flatten", hidden=(1024,)))
        pooled = build("vgg16", 2, HeadSpec(pooling="max"), 32)
        x = torch.zeros(1, 3, 224, 224)
    assert last_linear(own.get_classifier()).in_features == 4096
    assert features(flat, x).shape == (1, 512, 7, 7)
    assert flat.get_classifier()[1].weight.shape == (1024, 512 * 7 * 7)
    assert features(pooled, x).shape == (1, 512)
    theirs = {name for name in own.state_dict() if name.startswith("features.")}
    assert set(flat.state_dict()) == theirs | {
        f"head.fc.{i}.{kind}" for i in (1, 4) for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("arch", "head", "what"),
    [
        ("mobilenetv3_small_050", HEADS["catavgmax"], "cannot take the pooling 'catavgmax'"),
        ("test_convnext", HEADS["catavgmax"], "cannot take another pooling"),
        ("deit_tiny_distilled_patch16_224", HeadSpec(hidden=(8,)), "cannot get a new head"),
        ("levit_128", HeadSpec(pooling="flatten"), "cannot get a new head"),
        ("vit_tiny_patch16_224", HeadSpec(pooling="flatten"), "cannot take images of 96 pixels"),
    ],
)
def test_what_an_architecture_cannot_take(arch: str, head: HeadSpec, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught, torch.device("meta"):
        build(arch, 3, head, 96)
    assert caught.value.why
    assert caught.value.hint


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("arch", ARCHES)
def test_every_head_comes_back_from_its_checkpoint(arch: str, head: HeadSpec, tmp_path: Path) -> None:
    module = build(arch, 3, head, SIZE).eval()
    save_checkpoint(module, spec(arch, head), tmp_path / "m.safetensors")
    known = spec_of(tmp_path / "m.safetensors")
    assert known is not None
    assert known.head == head
    again = module_from_state(known, read_state(tmp_path / "m.safetensors"), "m")
    with torch.inference_mode():
        assert torch.equal(module(images()), again(images()))


def test_a_flattened_head_belongs_to_its_size(tmp_path: Path) -> None:
    state = build("test_resnet", 3, HEADS["flatten"], SIZE).state_dict()
    other = spec("test_resnet", HEADS["flatten"]).model_copy(update={"preprocess": Preprocess(size=96)})
    with pytest.raises(InputError, match="do not fit"):
        module_from_state(other, state, "m")
    own_size = build("test_resnet", 3, HEADS["flatten"])
    assert own_size.eval()(images(1, 160)).shape == (1, 3)


def test_a_spec_with_a_head_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        module_from_state(spec("test_resnet", HeadSpec(hidden=(-1,))), {}, "m")


def test_a_spec_s_head_is_the_one_asked_for() -> None:
    assert new_spec("test_resnet", ("a", "b"), 32, None, (), HEADS["max"]).head == HEADS["max"]
    assert new_spec("test_resnet", ("a", "b"), 32, None, ()).head is None


@pytest.mark.parametrize("name", ["catavgmax", "flatten and hidden"])
def test_exported_heads_answer_the_same(name: str, tmp_path: Path) -> None:
    known = spec("test_efficientnet", HEADS[name])
    torch.manual_seed(0)
    module = rebuild(known, "cpu").eval()
    write_onnx(to_onnx(module, known, 20), tmp_path / "model.onnx")
    parity = check_parity(module, tmp_path / "model.onnx", known, 4, 0, SilentReporter())
    assert parity["4"]["sqnr_db"] > 80


@pytest.mark.parametrize("name", ["catavgmax", "flatten and hidden"])
def test_pruning_keeps_the_classes_of_any_head(name: str) -> None:
    known = spec("test_efficientnet", HEADS[name])
    module = rebuild(known, "cpu").eval()
    before = module_cost(module, SIZE)
    graph, groups = find_groups(module, images(1), tp.importance.GroupMagnitudeImportance(p=2), "all")
    assert groups
    assert not any("classifier.3" in group.outputs for group in groups)
    for group in groups:
        group.kept = group.width // 2
    remove_channels(graph, groups)
    pruned = pruned_spec(module, known)
    assert last_linear(module.get_classifier()).out_features == 3
    assert any(width.startswith("classifier") for width in pruned.pruning or {})
    assert module_cost(rebuild(pruned).eval(), SIZE).macs < 0.6 * before.macs
    again = module_from_state(pruned, module.state_dict(), "m")
    with torch.inference_mode():
        assert torch.equal(again(images()), module(images()))


@pytest.mark.parametrize("head", [None, *HEADS.values()], ids=["own", *HEADS])
def test_only_the_head_differs_from_the_pretrained_file(head: HeadSpec | None, tmp_path: Path) -> None:
    source = build("test_efficientnet", 7)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    module, _ = pretrained("test_efficientnet", 3, str(tmp_path / "w.pth"), SilentReporter(), head, SIZE)
    theirs = source.state_dict()
    body = {name: tensor for name, tensor in module.state_dict().items() if "classifier" not in name}
    assert body.keys() == {name for name in theirs if "classifier" not in name}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in body.items())
    theirs.pop("conv_stem.weight")
    torch.save(theirs, tmp_path / "incomplete.pth")
    with pytest.raises(InputError, match="do not fit"):
        pretrained("test_efficientnet", 3, str(tmp_path / "incomplete.pth"), SilentReporter(), head, SIZE)


@pytest.mark.parametrize("name", ["catavgmax", "flatten and hidden"])
def test_a_package_s_order_is_that_of_the_own_head(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages name their tensors otherwise, and know nothing of another head's."""
    source = build("test_efficientnet", 1000)
    renamed = {f"tensor{i}": tensor for i, tensor in enumerate(source.state_dict().values())}
    torch.save(renamed, tmp_path / "package.pth")
    monkeypatch.setattr(weights, "_package_file", lambda arch: tmp_path / "package.pth")
    module, _ = pretrained("test_efficientnet", 3, "package", SilentReporter(), HEADS[name], SIZE)
    for mine, theirs in zip(module.blocks.parameters(), source.blocks.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def train_without_statistics(module: nn.Module) -> nn.Module:
    """Train mode without what batches do to batch normalisation, and with residual branches that count."""
    module.train()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.eval().weight)  # timm's ResNets start from 0 here
    return module


@torch.no_grad()
@pytest.mark.parametrize("arch", ["lite0", "test_resnet", "test_convnext"])
def test_drop_path_skips_blocks_while_training_only(arch: str) -> None:
    module = train_without_statistics(build(arch, 3, drop_path=0.8))
    without = train_without_statistics(build(arch, 3))
    assert module.state_dict().keys() == without.state_dict().keys()
    assert not torch.equal(module(images(8)), module(images(8)))
    assert torch.equal(without(images(8)), without(images(8)))
    assert torch.equal(module.eval()(images(8)), module(images(8)))


@torch.no_grad()
def test_drop_path_of_pretrained_weights() -> None:
    module, _ = pretrained("test_resnet", 3, "scratch", SilentReporter(), drop_path=0.8)
    train_without_statistics(module)
    assert not torch.equal(module(images(8)), module(images(8)))


@pytest.mark.parametrize("arch", ["vgg11", "ghostnet_100", "hrnet_w18_small", "lcnet_050"])
def test_drop_path_where_there_is_none(arch: str) -> None:
    with pytest.raises(UsageError, match=f"'{arch}' knows no drop-path") as caught, torch.device("meta"):
        build(arch, 3, drop_path=0.2)
    assert caught.value.hint


def test_the_options_are_the_spec() -> None:
    config = NewModelConfig.model_validate({"head": {"pooling": "flatten", "hidden": ["64"], "dropout": 0.2}})
    assert config.head.spec() == HeadSpec(pooling="flatten", hidden=(64,), dropout=0.2)
    assert config.head.init == "zero"


@pytest.mark.parametrize(
    "options",
    [
        {"head": {"hidden": [0]}},
        {"head": {"hidden": [64, -1]}},
        {"head": {"dropout": 1}},
        {"head": {"pooling": "sum"}},
        {"head": {"init": "ones"}},
        {"drop_path": 1},
        {"drop_path": -0.1},
    ],
)
def test_options_that_mean_nothing(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NewModelConfig.model_validate(options)
