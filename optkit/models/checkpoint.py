"""Checkpoints: safetensors with the spec in their metadata. Pickles are never executed."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from optkit.core.errors import InputError
from optkit.core.types import Artifact, ModelSpec
from optkit.models.build import rebuild

SPEC_KEY = "optkit.spec"
# What torch's own safe unpickler raises when it meets bytes that are no pickle at all.
BROKEN_PICKLE = (IndexError, KeyError, ValueError, TypeError, AttributeError)


def save_checkpoint(module: nn.Module, spec: ModelSpec, path: Path) -> None:
    """Write the weights, and `spec` in the file's metadata. OSError when the disk is full."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    try:
        save_file(state, path, metadata={SPEC_KEY: spec.model_dump_json()})
    except SafetensorError as error:
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code), str(path)) from None
    path.chmod(0o644)  # safetensors lets the owner alone read it


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file, or of a `state_dict` saved by torch.save; InputError for all else."""
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, EOFError, RuntimeError, OSError) as error:
        raise InputError(
            f"{str(path)!r} is not a readable checkpoint.",
            why=str(error).splitlines()[0] if str(error) else "The file ends too early.",
            hint="It may be truncated: copy or train it again.",
        ) from None
    except (pickle.UnpicklingError, *BROKEN_PICKLE):
        raise InputError(
            f"{str(path)!r} is a pickle, or no checkpoint at all, and is not opened.",
            why="Unpickling runs whatever code the file carries; only plain tensors are read.",
            hint="In the program that made it: safetensors.torch.save_file(model.state_dict(), 'm.safetensors').",
        ) from None
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{str(path)!r} holds no state_dict.", hint="Save model.state_dict() alone.")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def spec_of(path: Path) -> ModelSpec | None:
    """The spec in a safetensors file's metadata, None when there is none; InputError when it is broken."""
    try:
        with safe_open(path, "pt") as stream:
            text = (stream.metadata() or {}).get(SPEC_KEY)
        return ModelSpec.model_validate_json(text) if text else None
    except (SafetensorError, ValidationError, json.JSONDecodeError, OSError) as error:
        raise InputError(
            f"The metadata of {str(path)!r} cannot be read.",
            why=str(error).splitlines()[0],
            hint="Save the checkpoint again.",
        ) from None


def module_from_state(spec: ModelSpec, state: dict[str, torch.Tensor], origin: str) -> nn.Module:
    """The module of `spec` with the weights of `state`, in eval mode; InputError when they do not fit."""
    try:
        module = rebuild(spec)
        module.load_state_dict(state, assign=True)
        if any(buffer.is_meta for buffer in module.buffers()):  # index tables that no state_dict holds
            module = rebuild(spec, "cpu")
            module.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"The weights of {origin!r} do not fit {spec.arch!r} with {spec.num_classes} classes.",
            why=" ".join(str(error).split())[:300],
            hint="Name the architecture they were trained for (--arch).",
        ) from None
    return module.eval()


def load_module(artifact: Artifact) -> nn.Module:
    """The torch module of a TORCH artifact, in eval mode on the CPU."""
    return module_from_state(artifact.spec, read_state(artifact.file), str(artifact.path))
