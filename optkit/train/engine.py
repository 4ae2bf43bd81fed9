"""Lightning Fabric, set up from the options: devices, arithmetic, processes, logs."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import CSVLogger, TensorBoardLogger

from optkit.core import machine
from optkit.core.errors import MissingError, UsageError
from optkit.train.config import TrainConfig

# From this input size on, bf16 trains faster than FP32 on CPUs that have it; below, it is slower.
BF16_MIN_SIZE = 192
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_fabric(config: TrainConfig, size: int, seed: int, run_name: str = "run") -> Fabric:
    """Device and arithmetic for training at input size `size`, with everything random seeded.

    With several devices or nodes this starts, or joins, the other processes: each of them runs the same
    command. `run_name` is the folder of its logs.
    """
    _check_devices(config)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # or it announces its precision
    world = config.devices * config.nodes
    fabric = Fabric(
        accelerator="auto",
        devices=config.devices,
        num_nodes=config.nodes,
        strategy="ddp" if world > 1 else "auto",
        precision=PRECISIONS[_precision(config, size)],
        loggers=_loggers(config, run_name),
    )
    if world > 1:
        if config.batch_size % world:
            raise UsageError(
                f"A batch of {config.batch_size} cannot be shared by {world} processes.",
                hint=f"Give a --batch-size that {world} divides.",
            )
        try:
            fabric.launch()
        except ValueError as error:
            raise UsageError(
                "The processes do not match --devices and --nodes.",
                why=str(error).splitlines()[0],
                hint="Give torchrun or SLURM the same numbers.",
            ) from None
    fabric.seed_everything(seed, verbose=False)
    return fabric


def _precision(config: TrainConfig, size: int) -> str:
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise MissingError(
            "fp16 training needs a GPU.", why="There is no CUDA device here.", hint="Use --precision bf16."
        )
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    has_bf16 = {"avx512_bf16", "amx_bf16"} & set(machine.facts()["cpu_features"])
    return "bf16" if has_bf16 and size >= BF16_MIN_SIZE else "fp32"


def _check_devices(config: TrainConfig) -> None:
    if torch.cuda.is_available() and config.devices > torch.cuda.device_count():
        raise MissingError(
            f"--devices {config.devices}: this machine has {torch.cuda.device_count()} GPUs.",
            hint=f"Give --devices {torch.cuda.device_count()}.",
        )


def _loggers(config: TrainConfig, run_name: str) -> list[Any]:
    if config.log == "csv":
        return [CSVLogger(config.log_dir, name=run_name, flush_logs_every_n_steps=1)]
    if config.log == "tensorboard":
        return [TensorBoardLogger(config.log_dir, name=run_name)]
    return []
