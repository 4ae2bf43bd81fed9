"""Freezing, losses, schedules, mixing, checkpoints: each on its own."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from optkit.core import discover
from optkit.core.errors import UsageError
from optkit.core.progress import SilentReporter
from optkit.models.build import build
from optkit.train.checkpoints import Checkpoints
from optkit.train.config import PhaseConfig, TrainConfig
from optkit.train.evaluation import evaluate_module
from optkit.train.features import Features
from optkit.train.freezing import set_train_mode, unfreeze
from optkit.train.label_losses import label_loss
from optkit.train.lr_finder import steepest
from optkit.train.objectives import classification, distillation
from optkit.train.optimisation import Schedule, check_optimizer, make_optimizer
from optkit.train.regularisation import l1_norm, make_mixer
from optkit.train.stand_ins import FloatDepthwise, plain_state, put_stand_ins, remove_stand_ins
from tests.train.support import batch, natural, network


@pytest.mark.parametrize(
    ("what", "learns", "frozen"),
    [
        ("head", ["classifier"], ["conv_stem", "blocks.6", "conv_head"]),
        (1, ["classifier", "conv_head", "bn2", "blocks.6"], ["conv_stem", "blocks.0", "blocks.5"]),
        (2, ["classifier", "conv_head", "blocks.6", "blocks.5"], ["conv_stem", "blocks.4"]),
        (
            "from:blocks.5.1",
            ["classifier", "conv_head", "blocks.6", "blocks.5.1"],
            ["conv_stem", "blocks.5.0"],
        ),
        ("all", ["classifier", "conv_stem", "blocks.0"], []),
    ],
)
def test_unfreeze(what: str | int, learns: list[str], frozen: list[str]) -> None:
    module = build("lite0", 2)
    unfreeze(module, what)
    state = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    for prefix in learns:
        assert all(value for name, value in state.items() if name.startswith(prefix)), prefix
    for prefix in frozen:
        assert not any(value for name, value in state.items() if name.startswith(prefix)), prefix


def test_unfreezing_what_is_not_there() -> None:
    with pytest.raises(UsageError, match="99 is more than"):
        unfreeze(build("lite0", 2), 99)
    with pytest.raises(UsageError, match=r"no module 'blocks\.9'") as caught:
        unfreeze(build("lite0", 2), "from:blocks.9")
    assert "blocks." in caught.value.hint


def test_frozen_statistics_stay() -> None:
    module = build("lite0", 2)
    for what, freeze_bn, stays in (("head", False, True), ("all", True, True), ("all", False, False)):
        unfreeze(module, what, freeze_bn)
        set_train_mode(module)
        before = module.bn1.running_mean.clone()
        module(torch.randn(4, 3, 32, 32) + 5)
        assert torch.equal(module.bn1.running_mean, before) is stays


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("3", 3),
        ({"blocks": 2}, 2),
        ({"from": "blocks.5"}, "from:blocks.5"),
        ("head", "head"),
        ("auto", "auto"),
    ],
)
def test_ways_to_say_what_learns(given: object, read: object) -> None:
    assert TrainConfig(unfreeze=given).unfreeze == read


@pytest.mark.parametrize("wrong", ["most", 0, "from:", {"blocks": 2, "from": "x"}, True])
def test_what_learns_is_checked(wrong: object) -> None:
    with pytest.raises(ValueError, match="number of last blocks"):
        TrainConfig(unfreeze=wrong)


def test_defaults_follow_the_start() -> None:
    fits, far = TrainConfig().completed(True, 2), TrainConfig().completed(False, 2)
    assert (fits.epochs, fits.lr, fits.unfreeze) == (3, 5e-4, 2)
    assert (far.epochs, far.lr, far.unfreeze) == (8, 2e-3, "all")
    given = TrainConfig(epochs=0, lr=0.1, unfreeze="head").completed(True, 2)
    assert (given.epochs, given.lr, given.unfreeze) == (0, 0.1, "head")


def test_phases_from_the_command_line_replace_the_usual_ones() -> None:
    text = "[{unfreeze: head, epochs: 5}, {unfreeze: {from: blocks.4}, epochs: 2, lr: 1.0e-4}]"
    options = TrainConfig(phases=text).completed(True, 2)
    assert options.schedule_of_phases(30) == (
        PhaseConfig(unfreeze="head", epochs=5, lr=1e-3),
        PhaseConfig(unfreeze="from:blocks.4", epochs=2, lr=1e-4),
    )
    usual = TrainConfig(epochs=4, lr=0.01).completed(True, 2).schedule_of_phases(30)
    assert [(p.unfreeze, p.epochs, p.lr) for p in usual] == [("head", 30, 1e-3), (2, 4, 0.01)]
    assert TrainConfig(epochs=0).completed(True, 2).schedule_of_phases(0) == ()
    with pytest.raises(ValueError, match="YAML"):
        TrainConfig(phases="[{unfreeze: head")


def test_a_head_alone_learns_at_the_rate_that_is_given() -> None:
    head = TrainConfig(unfreeze="head", lr=0.05, epochs=3).completed(True, 2).schedule_of_phases(30)
    assert head == (PhaseConfig(unfreeze="head", epochs=33, lr=0.05),)
    usual = TrainConfig(unfreeze="head").completed(True, 2).schedule_of_phases(30)
    assert usual[0].lr == 1e-3


def test_a_rate_that_is_to_be_found_is_left_open() -> None:
    phases = TrainConfig(
        find_lr=True, phases=[{"unfreeze": "head", "epochs": 1}, {"unfreeze": 2, "epochs": 1}]
    )
    assert [phase.lr for phase in phases.completed(True, 2).schedule_of_phases(0)] == [1e-3, None]
    for wrong in (
        {"lr": 0.1},
        {"unfreeze": "head"},
        {"phases": [{"unfreeze": "all", "epochs": 1, "lr": 0.1}]},
    ):
        with pytest.raises(UsageError, match="no learning rate to find"):
            TrainConfig(find_lr=True, **wrong).check()


def test_parts_of_a_batch_add_up_with_class_weights() -> None:
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 0, 1])
    whole = losses(logits, labels, class_weights="balanced")
    parts = [
        losses(part, truth, class_weights="balanced")
        for part, truth in zip(logits.chunk(2), labels.chunk(2), strict=True)
    ]
    assert whole == pytest.approx(sum(parts) / 2)


def test_the_focal_loss_has_a_slope_where_it_is_sure() -> None:
    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)
    options = TrainConfig(label_loss="focal", focal_gamma=0.5, label_smoothing=0.0)
    label_loss(options, COUNTS)(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_an_optimizer_that_does_not_take_its_options() -> None:
    with pytest.raises(UsageError, match="does not take"):
        check_optimizer(TrainConfig(optimizer="sgd", momentum=0.0))


def test_plateau_warms_up() -> None:
    found = rates("plateau", warmup=0.2)
    assert found[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert found[20] == 1


def test_one_cycle_leaves_momentum_alone_and_takes_any_optimizer() -> None:
    for name in ("momentum", "adadelta"):
        config = TrainConfig(optimizer=name, momentum=0.5, schedule="one-cycle")
        optimizer = make_optimizer(nn.Linear(2, 2), config, 1.0)
        Schedule(optimizer, config, 1.0, 2, 2).update(1)
        assert optimizer.param_groups[0].get("momentum", 0.5) == 0.5


def test_features_are_drawn_as_the_order_says() -> None:
    labels = torch.tensor([0] * 190 + [1] * 10)
    rare = Features(
        [torch.zeros(200, 1)], labels, lambda labels, rng: rng.choice(np.flatnonzero(labels), 200)
    )
    assert all(int(one.labels.min()) == 1 for one in rare.batches([0], 0))


def test_what_changes_no_weight_is_not_part_of_the_key() -> None:
    plain = TrainConfig().canonical()
    assert TrainConfig(workers=3, log="csv", checkpoint_seconds=1, log_dir="x").canonical() == plain
    assert TrainConfig(l1=0.1).canonical() != plain


COUNTS = torch.tensor([30, 10])


def losses(logits: torch.Tensor, labels: torch.Tensor, **options: object) -> float:
    return label_loss(TrainConfig(**{"label_smoothing": 0.0, **options}), COUNTS)(logits, labels).item()


def test_label_losses_are_what_their_names_say() -> None:
    logits = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 2
    hot = F.one_hot(labels, 2).float()
    p = logits.softmax(1)
    smoothed = F.cross_entropy(logits, labels, label_smoothing=0.2).item()
    assert losses(logits, labels) == pytest.approx(F.cross_entropy(logits, labels).item())
    assert losses(logits, labels, label_smoothing=0.2) == pytest.approx(smoothed)
    weights = 40 / (2 * COUNTS)
    weighted = (weights[labels] * F.cross_entropy(logits, labels, reduction="none")).mean().item()
    assert losses(logits, labels, class_weights="balanced") == pytest.approx(weighted)
    bce = F.binary_cross_entropy_with_logits(logits, hot).item()
    assert losses(logits, labels, label_loss="bce") == pytest.approx(bce)
    assert losses(logits, labels, label_loss="mse") == pytest.approx((p - hot).square().sum(1).mean().item())
    right = p[torch.arange(16), labels]
    focal = -((1 - right) ** 1.5 * right.log()).mean().item()
    assert losses(logits, labels, label_loss="focal", focal_gamma=1.5) == pytest.approx(focal, rel=1e-5)
    assert losses(logits, labels, label_loss="focal", focal_gamma=0) == pytest.approx(losses(logits, labels))
    assert losses(logits, hot) == pytest.approx(losses(logits, labels)), "shares of classes"


def rates(name: str, epochs: int = 10, steps: int = 10, **options: object) -> list[float]:
    config = TrainConfig(**{"optimizer": "momentum", "warmup": 0.0, "schedule": name, **options})
    optimizer = make_optimizer(nn.Linear(2, 2), config, 1.0)
    schedule = Schedule(optimizer, config, 1.0, epochs, steps)
    found = []
    for step in range(epochs * steps):
        schedule.update(step)
        found.append(schedule.lr)
        optimizer.step()
        if step % steps == steps - 1:
            schedule.end_epoch(0.5)
    return found


def test_schedules() -> None:
    assert set(rates("constant")) == {1.0}
    cosine = rates("cosine", min_lr=0.1)
    assert all(a >= b for a, b in pairwise(cosine))
    assert cosine[-1] == pytest.approx(0.1, abs=0.01)
    step = rates("step", decay_epochs=3, decay_rate=0.5)
    assert [step[i] for i in (0, 29, 30, 60, 99)] == pytest.approx([1, 1, 0.5, 0.25, 0.125])
    exponential = rates("exponential", decay_rate=0.9)
    assert exponential[::10] == pytest.approx([0.9**epoch for epoch in range(10)])
    plateau = rates("plateau", decay_rate=0.5)
    assert plateau[0] == 1
    assert plateau[-1] < 0.5
    one_cycle = rates("one-cycle", warmup=0.3)
    assert one_cycle.index(max(one_cycle)) == pytest.approx(30, abs=2)
    assert max(one_cycle) == pytest.approx(1, abs=0.01)
    assert one_cycle[-1] < 0.01
    warm = rates("cosine", warmup=0.2)
    assert warm[0] == pytest.approx(0.01)
    assert all(a < b for a, b in pairwise(warm[:20]))


@pytest.mark.parametrize("name", ["cosine", "plateau", "one-cycle"])
def test_layers_learn_at_their_own_rate(name: str) -> None:
    config = TrainConfig(layer_decay=0.5, warmup=0.0, schedule=name)
    module = network()
    optimizer = make_optimizer(module, config, 1.0)
    schedule = Schedule(optimizer, config, 1.0, 2, 2)
    schedule.update(0)
    by_parameter = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    stem, head = (by_parameter[id(p)] for p in (module.conv_stem.weight, module.classifier.weight))
    assert head == schedule.lr
    assert stem < head / 2


def test_weight_decay_spares_norms_and_biases() -> None:
    groups = make_optimizer(network(), TrainConfig(weight_decay=0.3), 1.0).param_groups
    decay = {group["weight_decay"]: group["params"] for group in groups}
    assert set(decay) == {0.0, 0.3}
    assert all(p.ndim <= 1 for p in decay[0.0])
    assert all(p.ndim > 1 for p in decay[0.3])


def test_an_unknown_optimizer_is_told_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="Unknown optimizer 'adamm'") as caught:
        check_optimizer(TrainConfig(optimizer="adamm"))
    assert "adam" in caught.value.hint


def test_l1_counts_what_learns_and_is_a_matrix() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    for parameter in module.parameters():
        nn.init.constant_(parameter, -2.0)
    module[1].requires_grad_(False)
    assert l1_norm(module).item() == 8.0


def test_mixing_gives_shares_of_classes() -> None:
    one = batch(8)
    assert make_mixer(TrainConfig(), 2) is None
    for options in ({"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}):
        mixer = make_mixer(TrainConfig(**options), 2)
        assert mixer is not None
        torch.manual_seed(1)
        views, shares = mixer([one.views[0], one.views[0]], one.labels)
        assert torch.equal(views[0], views[1]), "teacher and student see the same"
        assert not torch.equal(views[0], one.views[0])
        assert shares.shape == (8, 2)
        assert shares.sum(1).tolist() == pytest.approx([1.0] * 8)
        assert 0 < float(shares.max(1).values.min()) < 1


def test_cutmix_of_two_sizes_is_refused() -> None:
    mixer = make_mixer(TrainConfig(cutmix=1.0), 2)
    assert mixer is not None
    with pytest.raises(UsageError, match="same input size"):
        mixer([torch.zeros(4, 3, 32, 32), torch.zeros(4, 3, 48, 48)], torch.zeros(4, dtype=torch.long))


def test_distillation_follows_the_teacher_not_the_labels() -> None:
    torch.manual_seed(0)
    teacher, student = build("resnet10t", 2), build("resnet10t", 2)
    kl = discover.load("optkit.train.losses", "kl", "distillation loss").loss
    data = batch()
    teacher.eval()
    student.eval()
    with torch.no_grad():
        target = teacher(data.views[0])
    hard = label_loss(TrainConfig(label_smoothing=0.2), COUNTS)
    pure, logits = distillation(teacher, kl, hard, 1.0, 1.0, nullcontext)(student, data.views, data.labels)
    assert pure.item() == pytest.approx(kl(logits, target, data.labels, 1.0).item(), rel=1e-4)
    mixed, _ = distillation(teacher, kl, hard, 0.25, 1.0, nullcontext)(student, data.views, data.labels)
    labels_alone, _ = classification(hard)(student, data.views, data.labels)
    assert mixed.item() == pytest.approx((0.25 * pure + 0.75 * labels_alone).item(), rel=1e-4)
    pure.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_evaluation_counts_and_averages() -> None:
    data = []
    for n in (6, 2):
        one = batch(n)
        one.labels = one.labels.numpy()
        data.append(one)

    class Bright(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((1, 2, 3)) * self.scale
            return torch.stack([torch.zeros_like(mean), mean - 1.5], 1)

    fabric = Fabric(accelerator="cpu")
    found = evaluate_module(Bright(), data, 8, fabric, SilentReporter(), nullcontext)
    assert (found["val_top1"], found["n"]) == (1.0, 8)
    assert 0 < found["val_loss"] < 0.5


def test_epochs_over_features_can_start_in_the_middle() -> None:
    views = [torch.arange(200.0)[:, None] + 1000 * view for view in range(2)]
    features = Features(views, torch.arange(200), natural)
    whole = list(features.batches([0, 1], 0))
    assert len(whole) == features.steps() == 3
    rest = list(features.batches([0, 1], 2))
    assert torch.equal(whole[2].views[0], rest[0].views[0])
    seen = torch.cat([one.views[0] for one in whole]).flatten()
    assert {int(value) // 1000 for value in seen} == {0, 1}, "both views are used"
    labels = torch.cat([one.labels for one in whole])
    assert torch.equal(seen % 1000, labels.float())
    assert not torch.equal(labels, torch.cat([one.labels for one in features.batches([0, 2], 0)]))


def test_the_range_test_suggests_the_steepest_fall() -> None:
    rates_ = list(np.geomspace(1e-5, 1, 60))
    falls = [1 / (1 + (rate / 1e-3) ** 2) for rate in rates_]
    assert 3e-4 < steepest(rates_, falls) < 3e-3
    with pytest.raises(UsageError, match="no learning rate"):
        steepest(rates_, [1.0 + i for i in range(60)])


def test_checkpoints_are_replaced_whole_and_live_in_memory_without_a_folder(tmp_path: Path) -> None:
    for folder in (tmp_path / "new", None):
        checkpoints = Checkpoints(folder, SilentReporter())
        assert checkpoints.load("state") is None
        weights = torch.ones(3)
        checkpoints.save("state", {"weights": weights, "history": [{"loss": 1.0}]})
        weights.zero_()
        found = checkpoints.load("state")
        assert found is not None
        assert found["weights"].tolist() == [1, 1, 1]
        assert found["history"] == [{"loss": 1.0}]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["state.pt"]


def test_depthwise_layers_stand_in_with_the_same_answers_and_names() -> None:
    module = network().to(memory_format=torch.channels_last).train()
    names = list(module.state_dict())
    pixels = batch().views[0].to(memory_format=torch.channels_last)
    dtypes = []

    def gradients() -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(pixels).float().logsumexp(1).mean()
        loss.backward()
        found = {
            name.replace(".layer", ""): parameter.grad.clone()
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }
        module.zero_grad(set_to_none=True)
        return found

    plain = gradients()
    put_stand_ins(module, processes=1, is_bf16=True)
    stand_in = next(layer for layer in module.modules() if isinstance(layer, FloatDepthwise))
    stand_in.layer.register_forward_hook(lambda layer, x, y: dtypes.append(y.dtype))
    assert list(plain_state(module).keys() ^ names) == []
    ours = gradients()
    assert set(dtypes) == {torch.float32}, "the depthwise layer computes in FP32"
    weights = [name for name in plain if plain[name].ndim > 1]
    cosine = [
        F.cosine_similarity(plain[name].flatten(), ours[name].flatten(), dim=0).item() for name in weights
    ]
    assert min(cosine) > 0.9
    remove_stand_ins(module)
    assert list(module.state_dict()) == names
