"""Training as a whole: phases, what every option does, and going on after a kill."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from optkit.core.errors import UsageError
from optkit.core.progress import SilentReporter
from optkit.train.config import PhaseConfig
from optkit.train.phase import Diverged
from tests.train.support import BATCH, STEPS, MemoryImages, batch, fit, network, phase, same, trainer


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights after two epochs with default options."""
    return fit(trainer(tmp_path_factory.mktemp("plain")))


def test_training_learns_and_records_every_epoch(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    fit(one, phase(epochs=6))
    metrics = one.finish()
    assert [row["epoch"] for row in one.history] == [1, 2, 3, 4, 5, 6]
    assert one.history[-1]["loss"] < one.history[0]["loss"]
    assert one.history[-1]["train_top1"] > 0.9
    assert one.history[-1]["val_top1"] == metrics["top1"]
    assert metrics["n"] == 16


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, plain: dict[str, torch.Tensor]) -> None:
    assert same(fit(trainer(tmp_path)), plain)


# Every option that changes the weights, with a value that is not its default.
CHANGES: dict[str, dict[str, Any]] = {
    "optimizer": {"optimizer": "sgd"},
    "nesterov": {"optimizer": "momentum"},
    "rmsprop": {"optimizer": "rmsprop"},
    "lion": {"optimizer": "lion"},
    "adam": {"optimizer": "adam"},
    "weight_decay": {"weight_decay": 0.5},
    "l1": {"l1": 0.01},
    "layer_decay": {"layer_decay": 0.5},
    "schedule": {"schedule": "constant"},
    "one_cycle": {"schedule": "one-cycle"},
    "warmup": {"warmup": 0.5},
    "min_lr": {"min_lr": 5e-4},
    "label_loss": {"label_loss": "bce"},
    "label_smoothing": {"label_smoothing": 0.0},
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "ema": {"ema": 0.9},
    "precision": {"precision": "bf16"},
    "accumulate": {"accumulate": 2},  # batch normalisation sees smaller parts
    "freeze_bn": {"freeze_bn": True},
}


@pytest.mark.parametrize("options", CHANGES.values(), ids=CHANGES.keys())
def test_every_option_changes_the_weights(
    options: dict[str, Any], tmp_path: Path, plain: dict[str, torch.Tensor]
) -> None:
    weights = fit(trainer(tmp_path, options))
    assert not same(weights, plain)
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())


def test_sgd_and_momentum_differ_by_nesterov(tmp_path: Path) -> None:
    found = [fit(trainer(tmp_path / name, {"optimizer": name})) for name in ("sgd", "momentum")]
    assert not same(*found)


def test_momentum_is_passed_on(tmp_path: Path) -> None:
    found = [fit(trainer(tmp_path / str(m), {"optimizer": "momentum", "momentum": m})) for m in (0.0, 0.9)]
    assert not same(*found)


def test_accumulated_parts_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    """With frozen statistics the parts of a batch do not know of each other."""
    options = {"optimizer": "momentum", "freeze_bn": True}
    whole, parts = (
        fit(trainer(tmp_path / str(n), {**options, "accumulate": n}), phase("all", 1)) for n in (1, 4)
    )
    assert not same(whole, network().state_dict())
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-5), name


def test_freezing_all_batch_normalisation(tmp_path: Path) -> None:
    before = network().state_dict()
    after = fit(trainer(tmp_path, {"freeze_bn": True}))
    norms = [name for name in before if "bn" in name]
    assert norms
    assert all(torch.equal(before[name], after[name]) for name in norms)


def test_channels_last_is_how_images_lie_in_memory(tmp_path: Path) -> None:
    for wanted in (True, False):
        seen = []
        one = trainer(tmp_path / str(wanted), {"channels_last": wanted})
        one.module.conv_stem.register_forward_pre_hook(
            lambda layer, inputs, seen=seen: seen.append(
                inputs[0].is_contiguous(memory_format=torch.channels_last)
            )
        )
        fit(one, phase(epochs=1))
        assert seen[0] is wanted


def test_compile_compiles_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    original = torch.compile

    def spy(module: Any, *arguments: Any, **options: Any) -> Any:
        compiled.append(module)
        return original(module, backend="eager")

    monkeypatch.setattr(torch, "compile", spy)
    one = trainer(tmp_path, {"compile": True})
    fit(one, phase(epochs=1))
    assert compiled
    assert compiled[0] is one.module


def test_phases_train_what_they_name(tmp_path: Path) -> None:
    before = network().state_dict()
    one = trainer(tmp_path)
    after = fit(one, phase("head", 3), phase(1, 2, 1e-4))
    assert [(row["phase"], row["epoch"]) for row in one.history] == [
        ("head", 1), ("head", 2), ("head", 3), ("blocks", 1), ("blocks", 2),
    ]  # fmt: skip
    assert one.history[0]["lr"] > one.history[3]["lr"]
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "classifier" in changed
    assert torch.equal(before["conv_stem.weight"], after["conv_stem.weight"])


def test_the_head_learns_from_cached_features_alone(tmp_path: Path) -> None:
    training = MemoryImages()
    one = trainer(tmp_path, training=training)
    before = {name: value.clone() for name, value in one.module.state_dict().items()}
    after = fit(one, phase("head", 60, 0.01))
    assert training.read == [], "no epoch over images"
    assert one.history[-2]["train_top1"] > 0.9
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_a_head_can_learn_from_several_views(tmp_path: Path) -> None:
    found = [fit(trainer(tmp_path / str(n), {"head_views": n}), phase("head", 3)) for n in (1, 2)]
    assert not same(*found)


def test_patience_ends_a_phase(tmp_path: Path) -> None:
    one = trainer(tmp_path, {"patience": 2})
    fit(one, phase("head", 50, 1e-9))
    assert len(one.history) == 3, "the first epoch is the best, two more are waited for"


@pytest.mark.parametrize("keep", ["last", "best"])
def test_best_and_last_weights_are_both_there(keep: str, tmp_path: Path) -> None:
    """The learning rate is so large that the network gets worse again."""
    one = trainer(tmp_path, {"keep": keep, "schedule": "constant", "optimizer": "momentum"})
    scores = iter([0.5, 0.9, 0.2])
    one._validate = lambda autocast: {"val_top1": next(scores), "val_loss": 0.0, "n": 16}  # type: ignore[method-assign]
    states = []
    one._checkpoints.save = _spying(one._checkpoints.save, states)  # type: ignore[method-assign]
    if keep == "last":
        scores = iter([0.5, 0.9, 0.2])  # the last one is measured by `finish`
    else:
        scores = iter([0.5, 0.9, 0.2, 0.9])
    fit(one, phase(epochs=3))
    metrics = one.finish()
    best = [state["network"] for name, state in states if name == "best"][-1]
    kept = one.module.state_dict()
    assert same(kept, best) is (keep == "best")
    assert metrics["top1"] == (0.9 if keep == "best" else 0.2)
    other = load_file(tmp_path / ("last.safetensors" if keep == "best" else "best.safetensors"))
    assert same(other, best) is (keep == "last")


def _spying(save: Any, states: list[tuple[str, dict[str, Any]]]) -> Any:
    def spy(name: str, state: dict[str, Any]) -> None:
        copied = {
            key: {k: v.clone() for k, v in value.items()} if key == "network" else value
            for key, value in state.items()
        }
        states.append((name, copied))
        save(name, state)

    return spy


def test_the_learning_rate_is_found_and_the_weights_are_put_back(
    tmp_path: Path, plain: dict[str, torch.Tensor]
) -> None:
    one = trainer(tmp_path, {"find_lr": True})
    weights = fit(one, PhaseConfig(unfreeze="all", epochs=2))
    finder = one.details()["lr_finder"]
    assert 1e-6 < finder["suggestion"] < 1
    assert finder["suggestion"] in finder["lr"]
    assert len(finder["lr"]) == len(finder["loss"]) > 10
    assert not same(weights, plain)
    with_it = fit(trainer(tmp_path / "again"), phase(lr=finder["suggestion"]))
    assert same(weights, with_it), "the test itself leaves no trace"


def test_a_rate_that_is_given_is_not_looked_for(tmp_path: Path, plain: dict[str, torch.Tensor]) -> None:
    one = trainer(tmp_path, {"find_lr": True})
    assert same(fit(one), plain)
    assert "lr_finder" not in one.details()


def test_a_training_killed_while_it_waits_for_the_end_stops_where_it_would(tmp_path: Path) -> None:
    """The checkpoint of the last epoch that patience allows is followed by no further epoch."""
    options = {"patience": 1, "checkpoint_seconds": 0, "schedule": "constant", "optimizer": "momentum"}
    phases = (phase("all", 20, 1e-9),)
    whole = trainer(tmp_path / "whole", options)
    expected = fit(whole, *phases)
    cut = trainer(tmp_path / "cut", options)
    original = cut._checkpoints.save
    names = []

    def killing(name: str, state: dict[str, Any]) -> None:
        original(name, state)
        names.append(name)
        if name == "state" and state["progress"]["stale"] == 1:
            raise Killed

    cut._checkpoints.save = killing  # type: ignore[method-assign]
    with pytest.raises(Killed):
        fit(cut, *phases)
    going_on = trainer(tmp_path / "cut", options, module=network())
    assert same(fit(going_on, *phases), expected)
    assert len(going_on.history) == len(whole.history) < 20


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layers_are_put_back_when_training_stops(precision: str, tmp_path: Path) -> None:
    one = trainer(tmp_path, {"precision": precision, "schedule": "constant", "checkpoint_seconds": 0})
    names = list(one.module.state_dict())

    class Poisoned(MemoryImages):
        def epoch(self, number: int, start: int = 0) -> Any:
            for found in super().epoch(number, start):
                if len(self.read) > STEPS:
                    found.views[0][:] = math.nan
                yield found

    one = trainer(tmp_path, {"precision": precision}, training=Poisoned())
    with pytest.raises(Diverged) as caught:
        fit(one, phase(epochs=3))
    assert list(one.module.state_dict()) == names
    assert "last_good.safetensors" in caught.value.hint


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("kill_at", [0, 1, 5, STEPS, 2 * STEPS + 1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema": 0.9, "mixup": 0.3},
        {"schedule": "one-cycle"},
        {"schedule": "plateau", "optimizer": "momentum"},
        {"precision": "bf16"},
    ],
    ids=["plain", "ema", "one-cycle", "plateau", "bf16"],
)
def test_a_killed_training_ends_with_the_same_weights(
    kill_at: int, options: dict[str, Any], tmp_path: Path
) -> None:
    def kill(number: int) -> None:
        if number == kill_at:
            raise Killed

    phases = (phase("head", 2), phase(1, 2), phase("all", 2))
    options = {**options, "checkpoint_seconds": 0}  # after every step
    whole = trainer(tmp_path / "whole", options)
    expected = fit(whole, *phases)
    with pytest.raises(Killed):
        fit(trainer(tmp_path / "cut", options, training=MemoryImages(kill)), *phases)
    rest = MemoryImages()
    going_on = trainer(tmp_path / "cut", options, module=network(), training=rest)
    assert same(fit(going_on, *phases), expected)
    assert len(rest.read) == 4 * STEPS - kill_at, "no step is done twice"
    assert going_on.history == whole.history


def test_a_training_that_was_killed_after_its_end_is_not_done_again(tmp_path: Path) -> None:
    expected = fit(trainer(tmp_path))
    images = MemoryImages()
    assert same(fit(trainer(tmp_path, module=network(), training=images)), expected)
    assert images.read == []


def test_a_damaged_checkpoint_is_told_and_left_aside(tmp_path: Path, plain: dict[str, torch.Tensor]) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "state.pt").write_bytes(b"half a file")
    reporter = SilentReporter()
    assert same(fit(trainer(tmp_path, reporter=reporter)), plain)
    assert "damaged" in reporter.warnings[0]


def test_divergence_stops_with_a_remedy(tmp_path: Path) -> None:
    one = trainer(tmp_path, {"schedule": "constant", "checkpoint_seconds": 0, "optimizer": "momentum"})
    with pytest.raises(Diverged, match="diverged in epoch 1") as caught:
        fit(one, phase(epochs=20, lr=1e12))
    assert "--lr 1e+11" in caught.value.hint


def test_weights_from_before_a_late_divergence_are_kept(tmp_path: Path) -> None:
    class Poisoned(MemoryImages):
        def epoch(self, number: int, start: int = 0) -> Any:
            for found in super().epoch(number, start):
                if len(self.read) > STEPS + 1:
                    found.views[0][:] = math.nan
                yield found

    one = trainer(tmp_path, training=Poisoned())
    with pytest.raises(Diverged, match="epoch 2") as caught:
        fit(one, phase(epochs=3))
    kept = tmp_path / "scratch" / "last_good.safetensors"
    assert str(kept) in caught.value.hint
    expected = fit(trainer(tmp_path / "other"), phase(epochs=3))
    assert load_file(kept).keys() == expected.keys()
    assert all(bool(torch.isfinite(v).all()) for v in load_file(kept).values())


def test_batches_are_halved_when_memory_runs_out(tmp_path: Path) -> None:
    reporter = SilentReporter()
    one = trainer(tmp_path, reporter=reporter)
    sizes = []

    def limited(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if layer.training and len(inputs[0]) > BATCH // 4:
            raise torch.OutOfMemoryError("no memory")
        sizes.append(len(inputs[0]))

    one.module.conv_stem.register_forward_pre_hook(limited)
    fit(one, phase(epochs=1))
    assert one.details()["parts"] == 4
    assert BATCH // 4 in sizes
    assert len(reporter.warnings) == 2
    expected = fit(trainer(tmp_path / "given", {"accumulate": 4}), phase(epochs=1))
    assert same(one.module.state_dict(), expected), "the update is that of the whole batch"


def test_too_little_memory_for_one_image_is_an_error(tmp_path: Path) -> None:
    one = trainer(tmp_path)

    def never(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if layer.training:
            raise torch.OutOfMemoryError("no memory")

    one.module.conv_stem.register_forward_pre_hook(never)
    with pytest.raises(UsageError, match="memory does not suffice"):
        fit(one)


def test_other_errors_are_not_taken_for_lack_of_memory(tmp_path: Path) -> None:
    one = trainer(tmp_path)

    def broken(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        raise RuntimeError("something else")

    one.module.conv_stem.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="something else"):
        fit(one)


@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
def test_logs_are_written_while_training(kind: str, tmp_path: Path) -> None:
    if kind == "tensorboard":
        pytest.importorskip("tensorboard", reason="pip install 'optkit[tensorboard]'")
    fit(trainer(tmp_path, {"log": kind, "log_dir": str(tmp_path / "logs")}))
    files = [path for path in (tmp_path / "logs" / "run").rglob("*") if path.is_file()]
    if kind == "csv":
        text = next(path for path in files if path.name == "metrics.csv").read_text()
        assert "1-blocks/loss" in text
        assert "1-blocks/val_top1" in text
        assert len(text.splitlines()) >= 3
    else:
        assert any("tfevents" in path.name and path.stat().st_size > 200 for path in files)


def test_plateau_lowers_the_rate_when_validation_stops_improving(tmp_path: Path) -> None:
    one = trainer(tmp_path, {"schedule": "plateau", "optimizer": "momentum", "decay_rate": 0.5})
    fit(one, phase("head", 6, 1e-9))
    rates = [row["lr"] for row in one.history]
    assert rates[0] == 1e-9
    assert rates[-1] <= 0.5e-9


def test_statistics_move_towards_the_images(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    before = {name: value.clone() for name, value in one.module.state_dict().items()}
    bright = batch(16)
    bright.pixels = bright.pixels + 9
    one.refresh_statistics([bright] * 3, 48)
    after = one.module.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)


def test_keeping_the_best_measures_the_last_epoch_too(tmp_path: Path) -> None:
    for keep, measured in (("last", False), ("best", True)):
        one = trainer(tmp_path / keep, {"keep": keep})
        fit(one, phase(epochs=2))
        assert ("val_top1" in one.history[-1]) is measured
