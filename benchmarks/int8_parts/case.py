"""One FP32 network with its photos, and the files that are made of it and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
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

ORT, OPENVINO = "onnxruntime", "openvino"
FP32 = "FP32"


@dataclass(frozen=True)
class Options:
    """How to measure: below `folder` lies what is made, below `environments` the peers."""

    folder: Path
    environments: Path
    rounds: int
    seconds: float
    threads: int
    report: Callable[[str], None]


@dataclass
class Row:
    """A file in a runtime. `error` says why something of it is missing."""

    name: str
    runtime: str
    artifact: Artifact
    made_in_seconds: float | None = None
    peak_mb: float | None = None
    answers: Answers | None = None
    latency_ms: Figure | None = None
    to_fp32: Figure | None = None
    to_u8s8: Figure | None = None
    found: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        plain = {name: value for name, value in self.__dict__.items() if name != "artifact"}
        for name in ("answers", "latency_ms", "to_fp32", "to_u8s8"):
            plain[name] = None if plain[name] is None else asdict(plain[name])
        return plain


@dataclass
class Case:
    """`rows[0]` is FP32 in ONNX Runtime. `times` are the rounds of the latest measurement, by row."""

    name: str
    fp32: Artifact
    images: files.Images
    options: Options
    rows: list[Row] = field(default_factory=list)
    times: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows += [Row(FP32, runtime, self.fp32) for runtime in (ORT, OPENVINO)]

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
        self.options.report(f"{self.name}: optkit, {name}")
        words = ["--target", target, *options]
        row = Row(name, OPENVINO if target == OPENVINO else ORT, self.fp32)
        self.rows.append(row)
        try:
            made = files.quantise(self.fp32.file, self.images, words, self.folder / name.replace(" ", "_"))
        except Failed as error:
            row.error = str(error)
            return row
        row.artifact, row.made_in_seconds, row.found = made.artifact, made.run.seconds, made.found()
        row.found["warnings"] = list(made.artifact.manifest.warnings)
        row.peak_mb = made.run.peak_bytes / 1e6
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
                row.error = str(error)
            return
        for row in rows:
            row.made_in_seconds, row.peak_mb = run.seconds, run.peak_bytes / 1e6

    def evaluate(self) -> None:
        """Answers of every file on the evaluation photos."""
        pixels, labels = self.evaluation
        reference: NDArray[np.float32] | None = None
        for row in self.rows:
            self.options.report(f"{self.name}: answers of {row.name} in {row.runtime}")
            session = self._open(row)
            if session is None:
                continue
            logits = logits_of(session, pixels)
            session.close()
            reference = logits if reference is None else reference
            if np.isfinite(logits).all():
                row.answers = compare(reference, logits, labels)
            else:
                row.error = "some logits are not finite"

    def time(self, names: Iterable[str]) -> None:
        """Latency of FP32 and of the rows of these names, in turns."""
        wanted = {FP32, peers.ORT_U8S8.name, *names}
        rows = {f"{row.name} in {row.runtime}": row for row in self.rows if row.name in wanted}
        opened = {key: session for key, row in rows.items() if (session := self._open(row))}
        self.options.report(f"{self.name}: latency of {len(opened)} files")
        size = self.fp32.spec.preprocess.size
        self.times = latencies(opened, size, self.options.rounds, self.options.seconds)
        for key, values in self.times.items():
            row = rows[key]
            row.latency_ms = mean(values)
            row.to_fp32 = self.ratio(key, f"{FP32} in {ORT}")
            row.to_u8s8 = self.ratio(key, f"{peers.ORT_U8S8.name} in {ORT}")
            opened[key].close()

    def ratio(self, key: str, base: str) -> Figure | None:
        if base not in self.times:
            return None
        return ratio(self.times[key], self.times[base])

    def _open(self, row: Row) -> Session | None:
        if row.error:
            return None
        try:
            return open_cpu(row.artifact, row.runtime, self.options.threads)
        except OptkitError as error:
            row.error = f"{error.message} {error.why}"
            return None
