"""Export: checkpoint → ONNX → TensorRT engine."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch

from optkit.core.errors import InputError, UsageError
from optkit.core.types import Artifact, Context, Format, ModelSpec, Output
from optkit.graph.clean import clean, opset
from optkit.graph.onnx_file import classifier_io, embed_spec, read_onnx, write_onnx
from optkit.measure.onnx_cost import onnx_cost
from optkit.models.checkpoint import load_module
from optkit.stages.export.config import Config
from optkit.stages.export.parity import check_parity

COST_METRICS = ("macs", "params", "activations")


def run(config: Config, inputs: dict[str, dict[str, Artifact]], context: Context) -> Output:
    """Write model.onnx and, for `tensorrt`, engine.plan."""
    (artifact,) = inputs["model"].values()
    details: dict[str, Any] = {}
    onnx_path = context.workdir / Format.ONNX.filename
    if artifact.format == Format.TORCH:
        details["parity"] = _export(config, artifact, onnx_path, context)
    elif config.format == "onnx":
        raise UsageError(
            f"{str(artifact.file)!r} is an ONNX file already.",
            hint="--format tensorrt builds an engine from it.",
        )
    else:
        shutil.copyfile(artifact.file, onnx_path)
    if config.format == "tensorrt":
        details["engine"] = _build(config, artifact.spec, onnx_path, context)
    return Output(
        format=config.produces(),
        precision=artifact.precision,
        spec=artifact.spec,
        metrics=_cost(artifact, onnx_path),
        details=details,
    )


def _cost(artifact: Artifact, onnx_path: Path) -> dict[str, int]:
    known = artifact.manifest.metrics
    if all(name in known for name in COST_METRICS):
        return {name: known[name] for name in COST_METRICS}
    cost = onnx_cost(read_onnx(onnx_path), artifact.spec.preprocess.size)
    return cost.metrics()


def _export(config: Config, artifact: Artifact, path: Path, context: Context) -> dict[str, dict[str, float]]:
    """Write the checked ONNX file; returns how well it agrees with the network, by batch size."""
    spec = artifact.spec
    with context.reporter.track("Exporting to ONNX", 2) as task:
        module = load_module(artifact)
        model = to_onnx(module, spec, config.opset)
        write_onnx(model, path)
        task.advance(note="comparing with the network")
        parity = check_parity(module, path, spec, config.max_batch, config.seed, context.reporter)
        task.advance()
    return parity


def to_onnx(module: torch.nn.Module, spec: ModelSpec, opset_version: int) -> onnx.ModelProto:
    """ONNX of a module in eval mode, batch dynamic, BatchNorm folded, `spec` in its metadata."""
    size = spec.preprocess.size
    example = torch.zeros(2, 3, size, size)  # a batch of 1 would be taken for a constant
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (example,),
                input_names=["input"],
                output_names=["logits"],
                opset_version=opset_version,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise InputError(
            f"{spec.arch!r} cannot be exported to ONNX.",
            why=" ".join(str(error.__cause__ or error).split())[:300],
            hint="Its code depends on the data or on the batch size; choose another architecture.",
        ) from None
    if program is None:
        raise RuntimeError("torch.onnx.export made no program")
    model = program.model_proto
    clean(model)
    _check(model, opset_version)
    embed_spec(model, spec)
    return model


def _check(model: onnx.ModelProto, opset_version: int) -> None:
    """The exporter may ignore what it was asked for without a word."""
    if opset(model) != opset_version:
        raise UsageError(
            f"The exporter cannot write opset {opset_version}.",
            why=f"It wrote opset {opset(model)} instead.",
            hint="Leave --opset out, or choose one from 18 to 25.",
        )
    result = model.graph.output[0].type.tensor_type.shape.dim[0]
    if classifier_io(model).batch is not None or result.dim_value:
        raise InputError(
            "The network works at one batch size only.",
            why="The exported graph has a fixed batch.",
            hint="Its forward() must not fix the batch, as a reshape to a constant does.",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's chatter; what matters comes as an exception or is checked in the file."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _build(config: Config, spec: ModelSpec, onnx_path: Path, context: Context) -> dict[str, Any]:
    """Write the engine; returns what it is."""
    from optkit.runtimes import tensorrt

    target = config.resolved_target()
    with context.reporter.track(f"Building the engine for {target}"):
        facts = tensorrt.build_engine(
            onnx_path,
            context.workdir / Format.ENGINE.filename,
            target,
            config.max_batch,
            spec.preprocess.size,
        )
    context.reporter.info(tensorrt.summary(facts))
    if facts["max_batch"] != config.max_batch:
        context.reporter.warn(
            f"The ONNX file has a fixed batch, so the engine takes batches of {facts['max_batch']} only."
        )
    if (reason := tensorrt.unavailable()) is not None:
        context.reporter.info(f"The engine was built and not run: {reason}.")
    return {**facts, "onnx": onnx_path.name}
