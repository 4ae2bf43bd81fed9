"""How to train: shared by fine-tuning, distillation and the recovery after pruning."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, field_validator

from optkit.core import discover
from optkit.core.config import Config
from optkit.core.errors import MissingError, UsageError
from optkit.core.types import Record

HEAD_LR = 1e-3  # a new head on frozen features
MAX_LR = 1e30  # beyond, an optimiser's own numbers overflow
UNFREEZE_HELP = "'all', 'head', a number of last blocks (with the head), or 'from:MODULE'"


def parse_unfreeze(value: Any) -> str | int:
    """`{blocks: 2}` → 2, `{from: blocks.5}` → 'from:blocks.5', '3' → 3; ValueError for anything unknown."""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, what),) = value.items()
        value = what if kind == "blocks" else f"{kind}:{what}"
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    is_name = isinstance(value, str) and value.startswith("from:") and len(value) > len("from:")
    if not (is_count or is_name or value in ("all", "head")):
        raise ValueError(f"give {UNFREEZE_HELP}")
    return value  # type: ignore[no-any-return]


class PhaseConfig(Record):
    """One stretch of a staged training: what learns, for how long, how fast."""

    unfreeze: str | int
    epochs: int = Field(ge=0)
    lr: float | None = Field(default=None, gt=0, le=MAX_LR)

    @field_validator("unfreeze", mode="before")
    @classmethod
    def _check_unfreeze(cls, value: Any) -> str | int:
        return parse_unfreeze(value)


class OptimizerOptions(Config):
    """Optimiser and schedule, by timm's names."""

    panel: ClassVar[str] = "Optimiser and schedule"

    optimizer: str = Field(
        default="adamw",
        description="Any of timm's: adamw, adam, sgd (Nesterov momentum), momentum (plain), rmsprop, lion, lamb …",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd, momentum and rmsprop.")
    weight_decay: float = Field(
        default=0.01, ge=0, description="Weight decay (L2); norms and biases are exempt."
    )
    l1: float = Field(default=0.0, ge=0, description="Weight of the L1 norm; norms and biases are exempt.")
    layer_decay: float | None = Field(
        default=None, gt=0, le=1, description="Learning rate of a layer as a share of the next one's."
    )
    schedule: Literal["cosine", "constant", "step", "exponential", "plateau", "one-cycle"] = Field(
        default="cosine", description="Course of the learning rate after the warm-up."
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="Share of a phase's steps spent warming up.")
    decay_epochs: int = Field(default=7, ge=1, description="Epochs between two decays of 'step'.")
    decay_rate: float = Field(
        default=0.1, gt=0, le=1, description="Factor of 'step' and 'plateau', and of 'exponential' per epoch."
    )
    min_lr: float = Field(default=0.0, ge=0, description="Where 'cosine' and 'plateau' end.")
    find_lr: bool = Field(
        default=False,
        description="Find the learning rate of phases on images that name none, by a range test.",
    )


class RegularisationOptions(Config):
    """Loss and regularisers."""

    panel: ClassVar[str] = "Loss and regularisation"

    label_loss: Literal["cross_entropy", "bce", "mse", "focal"] = Field(
        default="cross_entropy", description="Loss against the labels."
    )
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="Label smoothing.")
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="balanced: a class weighs the more in the loss the rarer it is."
    )
    focal_gamma: float = Field(default=2.0, ge=0, description="Focus of the focal loss on hard images.")
    mixup: float = Field(default=0.0, ge=0, description="Alpha of mixup; 0: none.")
    cutmix: float = Field(default=0.0, ge=0, description="Alpha of CutMix; 0: none. With mixup: one of both.")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="Decay of a moving average of the weights, which is then kept."
    )


class EngineOptions(Config):
    """How the machine is used."""

    panel: ClassVar[str] = "Engine"

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Arithmetic of training; auto: bf16 where the machine is faster with it."
    )
    channels_last: bool = Field(
        default=True, description="Memory layout NHWC while training, which convolutions prefer."
    )
    compile: bool = Field(default=False, description="torch.compile the network for training.")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Parts that a batch is computed in, one after the other, to save memory; "
        "doubled when memory runs out.",
    )
    devices: int = Field(default=1, ge=1, description="Processes on this machine, one per GPU.")
    nodes: int = Field(
        default=1,
        ge=1,
        description="Machines, as started by torchrun or SLURM, which share the folder runs/.",
    )
    workers: int = Field(default=-1, ge=-1, description="Loader processes; -1: by the number of cores.")
    checkpoint_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Seconds of training between two checkpoints, from which a killed one goes on.",
    )
    log: Literal["none", "csv", "tensorboard"] = Field(
        default="none", description="Write loss, learning rate and validation while training."
    )
    log_dir: str = Field(default="runs/logs", description="Folder of the logs.")


class TrainConfig(EngineOptions, RegularisationOptions, OptimizerOptions):  # pydantic lists the last first
    """Options of the training loop."""

    panel: ClassVar[str] = "Training"

    epochs: int | None = Field(
        default=None,
        ge=0,
        description="Epochs over the training images; default: 3 where pretrained weights fit, 8 where the whole "
        "network has to learn (from scratch, or images far smaller than those of the weights).",
    )
    batch_size: int = Field(
        default=32,
        ge=2,
        description="Images per step, on all devices together; a head alone takes 64 cached features.",
    )
    lr: float | None = Field(
        default=None,
        gt=0,
        le=MAX_LR,
        description="Peak learning rate; default: 0.0005 where pretrained weights fit, 0.002 where the whole "
        "network has to learn.",
    )
    unfreeze: str | int = Field(
        default="auto",
        description=f"What is trained: {UNFREEZE_HELP}; auto: the last 2 blocks when fine-tuning weights that "
        "fit, else all.",
    )
    freeze_bn: bool = Field(
        default=False, description="Batch normalisation keeps its weights and statistics everywhere."
    )
    phases: tuple[PhaseConfig, ...] = Field(
        default=(),
        description="Staged training in place of --epochs, --lr and --unfreeze, as YAML: "
        "'[{unfreeze: head, epochs: 5, lr: 0.001}, {unfreeze: 2, epochs: 3, lr: 0.0001}]'.",
    )
    head_views: int = Field(
        default=1,
        ge=1,
        description="Views of an image that a head alone learns from, computed once: the plain one, its mirror "
        "image, then random crops.",
    )
    patience: int | None = Field(
        default=None, ge=1, description="Stop a phase after so many epochs without a better validation."
    )
    keep: Literal["last", "best"] = Field(
        default="last", description="Which weights are kept: of the last epoch, or the best validated."
    )

    def canonical(self) -> dict[str, Any]:
        """Without what changes no weight."""
        silent = ("workers", "checkpoint_seconds", "log", "log_dir")
        return {name: value for name, value in super().canonical().items() if name not in silent}

    def check(self) -> None:
        """Options go together, and what logs are written with is installed."""
        super().check()
        wants_none = self.unfreeze == "head" or (self.phases and all(phase.lr for phase in self.phases))
        if self.find_lr and (self.lr is not None or wants_none):
            raise UsageError(
                "There is no learning rate to find.",
                why="It is given, or only the head is trained, which learns at its own.",
                hint="Leave out --find-lr, or --lr and the lr of a phase that trains more than the head.",
            )
        if self.log == "tensorboard" and not (
            discover.installed("tensorboard") or discover.installed("tensorboardX")
        ):
            raise MissingError(
                "Logs for TensorBoard need its package.",
                hint="pip install 'optkit[tensorboard]', or --log csv",
            )

    def processes(self) -> int:
        """One per device and node."""
        return self.devices * self.nodes

    def completed(self, fits: bool, blocks: str | int) -> TrainConfig:
        """These options with the defaults that depend on the start.

        `fits`: pretrained weights are near what is wanted, and large steps would only spoil them; `blocks`: what
        then learns by default. Where they do not fit, everything learns.
        """
        epochs, lr = (3, 5e-4) if fits else (8, 2e-3)
        lr = HEAD_LR if self.unfreeze == "head" else lr
        auto = {"epochs": epochs, "lr": lr, "unfreeze": blocks if fits else "all"}
        given = {name: getattr(self, name) for name in auto if getattr(self, name) not in (None, "auto")}
        return self.model_copy(update=auto | given)

    def schedule_of_phases(self, head_epochs: int) -> tuple[PhaseConfig, ...]:
        """The phases in order: those given, or the head for `head_epochs` and then the rest.

        Of completed options. Only a learning rate that is to be found is left None.
        """
        if self.phases:
            phases = self.phases
        elif self.unfreeze == "head":
            epochs = head_epochs + (self.epochs or 0)
            phases = (PhaseConfig(unfreeze="head", epochs=epochs, lr=self.lr),)
        else:
            phases = (
                PhaseConfig(unfreeze="head", epochs=head_epochs),
                PhaseConfig(unfreeze=self.unfreeze, epochs=self.epochs or 0),
            )
        on_images = None if self.find_lr else self.lr
        return tuple(
            phase.model_copy(update={"lr": phase.lr or (HEAD_LR if phase.unfreeze == "head" else on_images)})
            for phase in phases
            if phase.epochs
        )

    @field_validator("unfreeze", mode="before")
    @classmethod
    def _check_unfreeze(cls, value: Any) -> str | int:
        return "auto" if value == "auto" else parse_unfreeze(value)

    @field_validator("phases", mode="before")
    @classmethod
    def _read_phases(cls, value: Any) -> Any:
        """The command line gives YAML text."""
        try:
            phases = yaml.safe_load(value) if isinstance(value, str) else value
        except yaml.YAMLError:
            phases = value
        if not isinstance(phases, list | tuple | None):
            raise ValueError("it is not a YAML list of phases, [{unfreeze: head, epochs: 5, lr: 0.001}, …]")
        return phases or ()
