"""ONNX → engine."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

from optkit.core import machine
from optkit.core.errors import InputError, MissingError, UsageError
from optkit.runtimes.tensorrt.engine_file import FLAVOURS, describe
from optkit.runtimes.tensorrt.library import load_library, recorder


def build_engine(
    onnx_path: Path, engine_path: Path, target: str, max_batch: int, size: int
) -> dict[str, Any]:
    """Build a strongly typed engine, tuned for `max_batch`; returns what it is.

    `target` is a compute capability (`SM89`) or `portable`, `size` the input size where the graph leaves it
    open. MissingError without TensorRT, InputError when it refuses the graph.
    """
    found = machine.tensorrt()
    trt = load_library(found[0] if found else "tensorrt_rtx")
    logger = recorder(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError:  # how the binding reports a null pointer
        raise MissingError(
            "TensorRT does not start here.", why="; ".join(logger.errors[:2]), hint="See `optkit doctor`."
        ) from None
    network, _parser = _parse(trt, builder, logger, onnx_path)
    config = builder.create_builder_config()
    if trt.__name__ == "tensorrt_rtx" and target != "portable":
        _set_target(trt, config, target)
    max_batch = _set_profile(builder, network, config, max_batch, size)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(
            f"{FLAVOURS[trt.__name__]} cannot build {str(onnx_path)!r} for {target}.",
            why=" ".join((logger.errors or ["it gives no reason"])[0].split())[:400],
            hint="Choose another --target, or another precision.",
        )
    partial = engine_path.with_name(engine_path.name + ".part")
    partial.write_bytes(plan)
    os.replace(partial, engine_path)
    facts = describe(engine_path)
    return {
        **facts,
        "compute_capability": facts["compute_capability"] or [target],
        "target": target,
        "max_batch": max_batch,
        "network_layers": network.num_layers,
        "tf32_allowed": config.get_flag(trt.BuilderFlag.TF32),
        "builder_warnings": logger.warnings[:20],
    }


def _parse(trt: ModuleType, builder: Any, logger: Any, onnx_path: Path) -> tuple[Any, Any]:
    """The network of an ONNX file, and the parser, which owns its weights and must outlive the build."""
    # TensorRT 11 knows only strongly typed networks and ignores the flag; 10 needs it.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        named = [f"{error.node_operator()} {error.node_name()!r}: {error.desc()}" for error in errors]
        raise InputError(
            f"{FLAVOURS[trt.__name__]} refuses {str(onnx_path)!r}.",
            why=" ".join("; ".join(named[:3] or logger.errors[:1]).split())[:600],
            hint="An INT8 file must be quantised for this target: optkit quantize --target tensorrt.",
        )
    return network, parser


def _set_target(trt: ModuleType, config: Any, target: str) -> None:
    known = trt.ComputeCapability.__members__
    if target not in known:
        raise UsageError(
            f"TensorRT-RTX {trt.__version__} does not build for {target}.",
            hint="Known: " + ", ".join(name for name in known if name.startswith("SM")) + ".",
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(known[target], 0)


def _set_profile(builder: Any, network: Any, config: Any, max_batch: int, size: int) -> int:
    """Allow batches 1 … max_batch where the graph leaves the batch open; returns the largest allowed."""
    pixels = network.get_input(0)
    shape = tuple(pixels.shape)
    if -1 not in shape:
        return int(shape[0])
    open_batch = shape[0] == -1
    image = (3, *(side if side != -1 else size for side in shape[2:]))
    smallest, largest = (1, max_batch) if open_batch else (shape[0], shape[0])
    profile = builder.create_optimization_profile()
    profile.set_shape(pixels.name, (smallest, *image), (largest, *image), (largest, *image))
    config.add_optimization_profile(profile)
    return int(largest)
