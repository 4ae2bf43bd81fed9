"""One FP32 network with its photos, and the files that are made of it and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from int8_parts import files, peers
from int8_parts.evaluate import Answers, Figure, compare, latencies, logits_of, mean, open_cpu, ratio
from int8_parts.processes import Failed
from optkit.core.errors import OptkitError
from optkit.core.types import Artifact, Precision
from optkit.data.base import Dataset
from optkit.runtimes.base import Session

ORT, OPENVINO, TENSORRT = "onnxruntime", "openvino", "tensorrt"
FP32, FP32_DEFAULT = "FP32", "FP32 file, default precision"


@dataclass(frozen=True)
class Options:
    """How to measure: below `folder` lies what is made, below `environments` the peers."""

    folder: Path
    environments: Path
    rounds: int
    calibration_rounds: int
    seconds: float
    threads: int
    report: Callable[[str], None]


@dataclass
class Row:
    """A file in a runtime; `target` is what optkit made it for, `executed` the precision that really ran.

    `error` says why something of it is missing.
    """

    name: str
    runtime: str
    artifact: Artifact
    target: str | None = None
    made_in_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_mb: float | None = None
    executed: str | None = None
    answers: Answers | None = None
    latency_ms: Figure | None = None
    to_fp32: Figure | None = None
    to_u8s8: Figure | None = None
    to_fp32_there: Figure | None = None
    found: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        plain = {name: value for name, value in self.__dict__.items() if name != "artifact"}
        for name in ("answers", "latency_ms", "to_fp32", "to_u8s8", "to_fp32_there"):
            plain[name] = None if plain[name] is None else asdict(plain[name])
        return plain


@dataclass
class Case:
    """`rows[0]` is FP32 in ONNX Runtime, what everything is compared with."""

    name: str
    fp32: Artifact
    images: files.Images
    options: Options
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Of a file in BF16 optkit leaves the precision to OpenVINO, as OpenVINO does by default for every file.
        manifest = self.fp32.manifest.model_copy(update={"precision": Precision.BF16})
        self.rows += [Row(FP32, runtime, self.fp32) for runtime in (ORT, OPENVINO)]
        self.rows.append(Row(FP32_DEFAULT, OPENVINO, replace(self.fp32, manifest=manifest)))

    @property
    def folder(self) -> Path:
        return self.options.folder / self.name

    @cached_property
    def dataset(self) -> Dataset:
        return self.images.load(self.fp32.spec.class_names)

    @cached_property
    def calibration(self) -> Path:
        """The calibration images of optkit, decoded for the peers."""
        target = self.folder / "calibration.npy"
        return files.calibration_array(self.dataset, self.fp32.spec.preprocess, target)

    @cached_property
    def evaluation(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return files.decode(self.dataset.val, self.fp32.spec.preprocess)

    def row(self, name: str, runtime: str = ORT) -> Row | None:
        return next((row for row in self.rows if (row.name, row.runtime) == (name, runtime)), None)

    def add_optkit(self, name: str, target: str, options: list[str]) -> Row:
        """Quantise with optkit; the file is measured in the target's runtime, or ONNX Runtime for TensorRT's."""
        words = ["--target", target, *options]
        self.options.report(f"{self.name}: {name}: optkit quantize {' '.join(words)}")
        row = Row(name, OPENVINO if target == OPENVINO else ORT, self.fp32, target)
        self.rows.append(row)
        try:
            made = files.quantise(self.fp32.file, self.images, words, self.folder / name.replace(" ", "_"))
        except Failed as error:
            self._failed(row, str(error))
            return row
        row.artifact, row.made_in_seconds, row.found = made.artifact, made.run.seconds, made.found()
        row.cpu_seconds, row.peak_mb = made.run.cpu_seconds, made.run.peak_bytes / 1e6
        return row

    def add_peer(self, peer: peers.Peer) -> None:
        """Quantise with another tool; the file is measured in both runtimes."""
        self.options.report(f"{self.name}: {peer.name}")
        folder = self.folder / peer.name.replace(" ", "_")
        made = files.loose(folder, self.fp32.spec, Precision.INT8)
        rows = [Row(peer.name, runtime, made) for runtime in (ORT, OPENVINO)]
        self.rows += rows
        try:
            run, _ = peers.quantise(
                peer, self.options.environments, self.fp32.file, self.calibration, made.file
            )
        except Failed as error:
            for row in rows:
                self._failed(row, str(error))
            return
        for row in rows:
            row.made_in_seconds, row.cpu_seconds = run.seconds, run.cpu_seconds
            row.peak_mb = run.peak_bytes / 1e6

    def evaluate(self) -> None:
        """Answers of every file on the evaluation photos."""
        pixels, labels = self.evaluation
        reference: NDArray[np.float32] | None = None
        for row in self.rows:
            self.options.report(f"{self.name}: answers of {row.name} in {row.runtime}")
            session = self._open(row)
            if session is None:
                continue
            row.executed = session.facts["precision"]
            try:
                logits = logits_of(session, pixels)
            except OptkitError as error:
                self._failed(row, f"{error.message} {error.why}")
                continue
            finally:
                session.close()
            reference = logits if reference is None else reference
            if np.isfinite(logits).all():
                row.answers = compare(reference, logits, labels)
            else:
                self._failed(row, "some logits are not finite")

    def time(self) -> None:
        """Latency of every file in turns, but of TensorRT's, which is not made for a runtime of this CPU."""
        rows = {_key(row.name, row.runtime): row for row in self.rows if row.target != TENSORRT}
        opened = {key: session for key, row in rows.items() if (session := self._open(row))}
        self.options.report(f"{self.name}: latency of {len(opened)} files")
        size = self.fp32.spec.preprocess.size
        times = latencies(opened, size, self.options.rounds, self.options.seconds)

        def against(key: str, base: str) -> Figure | None:
            return ratio(times[key], times[base]) if base in times else None

        for key, values in times.items():
            row = rows[key]
            row.latency_ms = mean(values)
            row.to_fp32 = against(key, _key(FP32, ORT))
            row.to_u8s8 = against(key, _key(peers.ORT_U8S8.name, ORT))
            row.to_fp32_there = against(key, _key(FP32, row.runtime))
            opened[key].close()

    def _open(self, row: Row) -> Session | None:
        if row.error:
            return None
        try:
            return open_cpu(row.artifact, row.runtime, self.options.threads)
        except OptkitError as error:
            self._failed(row, f"{error.message} {error.why}")
            return None

    def _failed(self, row: Row, why: str) -> None:
        row.error = why
        self.options.report(f"{self.name}: {row.name} in {row.runtime} FAILED: {why}")


def _key(name: str, runtime: str) -> str:
    return f"{name} in {runtime}"
