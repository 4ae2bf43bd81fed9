"""The files that are compared: FP32 classifiers, and what optkit makes of them."""

from __future__ import annotations

import csv
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from stress import stress

from int8_parts.processes import Run, measured
from optkit.core import discover
from optkit.core.errors import EXIT_FAILED, EXIT_OK
from optkit.core.progress import SilentReporter
from optkit.core.store import read_artifact
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Precision, Preprocess
from optkit.data.base import Dataset, ImageSet
from optkit.data.calibration import choose_calibration
from optkit.data.config import DataConfig, class_folders, shares
from optkit.data.load import load_data
from optkit.data.loading import batches
from optkit.graph.onnx_file import classifier_io, embed_spec, read_onnx, spec_from_metadata, write_onnx
from optkit.graph.qdq_prepare import prepare
from optkit.models.build import default_preprocess
from optkit.models.checkpoint import save_checkpoint
from optkit.models.names import timm_name
from optkit.models.weights import pretrained
from optkit.stages.quantize.config import RUNGS

CALIBRATION_IMAGES = 300
SEED = 0  # of the choice of images: optkit's default
BATCH = 32
IMAGENET_CLASSES = 1000
KEPT_DETAILS = ("calibrator", "ladder", "budget", "validation", "speed", "float_prefix")


@dataclass(frozen=True)
class Images:
    """A data set as optkit's options name it."""

    path: Path
    val: Path | None = None

    def options(self) -> list[str]:
        val = [] if self.val is None else ["--val", str(self.val)]
        return ["--data", str(self.path), *val]

    def load(self, classes: tuple[str, ...]) -> Dataset:
        val = None if self.val is None else str(self.val)
        return load_data(DataConfig(path=str(self.path), val=val), SilentReporter(), classes)


@dataclass(frozen=True)
class Quantised:
    """A file that optkit made, the run of the command, and the seconds of the stage itself."""

    artifact: Artifact
    run: Run
    stage_seconds: float
    is_refused: bool = False  # until it was allowed to be slower than FP32 here

    def found(self) -> dict[str, Any]:
        """What the manifest tells of the quantisation."""
        details: dict[str, Any] = self.artifact.manifest.details.get("quantization", {})
        told = {name: details.get(name) for name in KEPT_DETAILS}
        return {**told, "refused": self.is_refused, "warnings": list(self.artifact.manifest.warnings)}


def optkit(arguments: list[str], folder: Path, accepted: tuple[int, ...] = (0,)) -> Run:
    """Run optkit's command line in an empty folder, so that no earlier result is found."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = [sys.executable, "-c", "from optkit.cli import main; main()", *arguments]
    return measured(words, folder, accepted)


def make_lite0(folder: Path) -> Artifact:
    """EfficientNet-Lite0 with the ImageNet weights of its pip package, as ONNX, made once; classes 0 … 999."""
    made = folder / "export" / "fp32"
    if made.is_dir():
        return read_artifact(made)
    module, _ = pretrained(timm_name("lite0"), IMAGENET_CLASSES, "package", SilentReporter())
    spec = ModelSpec(
        arch=timm_name("lite0"),
        num_classes=IMAGENET_CLASSES,
        class_names=tuple(map(str, range(IMAGENET_CLASSES))),
        # The whole photo, as the photos are cropped already.
        preprocess=default_preprocess(timm_name("lite0")).model_copy(update={"size": 224, "crop_pct": 1.0}),
    )
    checkpoint = folder / "checkpoint" / "model.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(module, spec, checkpoint)
    optkit(["export", str(checkpoint), "--out", str(made)], made.parent)
    return read_artifact(made)


def take_file(path: Path, data: Path, folder: Path) -> Artifact:
    """An FP32 file from outside, as it is, with the classes and the preprocessing in its metadata."""
    model = read_onnx(path)
    io, known = classifier_io(model), spec_from_metadata(model)
    names = tuple(entry.name for entry in class_folders(shares(data)[0]))
    preprocess = Preprocess(size=io.size or 224, crop_mode="squash")
    spec = known or ModelSpec(
        arch="onnx", num_classes=io.num_classes, class_names=names, preprocess=preprocess
    )
    return write(model, spec, folder)


def make_stress(artifact: Artifact, folder: Path, seed: int) -> Artifact:
    """The stress variant of `artifact`."""
    return write(stress(prepare(read_onnx(artifact.file)), seed), artifact.spec, folder)


def write(model: onnx.ModelProto, spec: ModelSpec, folder: Path) -> Artifact:
    """`model` as an artifact that nothing but this benchmark knows."""
    folder.mkdir(parents=True, exist_ok=True)
    embed_spec(model, spec)
    write_onnx(model, folder / Format.ONNX.filename)
    return loose(folder, spec, Precision.FP32)


def loose(folder: Path, spec: ModelSpec, precision: Precision) -> Artifact:
    """The `model.onnx` in `folder` as optkit's runtimes take it."""
    manifest = Manifest(stage="load", key=folder.name, format=Format.ONNX, precision=precision, spec=spec)
    return Artifact(folder.name, folder, manifest)


def decode(images: ImageSet, preprocess: Preprocess) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels (n, 3, size, size) and labels (n,)."""
    found = list(batches(images, preprocess, BATCH, SilentReporter()))
    return np.concatenate([one.pixels for one in found]), np.concatenate([one.labels for one in found])


def calibration_array(dataset: Dataset, preprocess: Preprocess, file: Path) -> Path:
    """Write the images that `optkit quantize` chooses, decoded, for tools that do not read photos."""
    chosen = choose_calibration(dataset, CALIBRATION_IMAGES, SEED, str(file), SilentReporter())
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, decode(chosen.images, preprocess)[0])
    return file


def quantise(model: Path, images: Images, options: list[str], folder: Path) -> Quantised:
    """`optkit quantize` in a folder of its own; again with --allow-slower where it refuses a file slower than FP32."""
    made = folder / "int8"
    command = ["quantize", str(model), *images.options(), *options, "--out", str(made)]
    run = optkit(command, folder, accepted=(EXIT_OK, EXIT_FAILED))
    is_refused = not made.is_dir()
    if is_refused:
        run = optkit([*command, "--allow-slower"], folder)
    artifact = read_artifact(made)
    return Quantised(artifact, run, artifact.manifest.seconds, is_refused)


def ladder_options(*without: str) -> list[str]:
    """Every rung but those named."""
    return ["--rungs", ",".join(name for name in discover.names(RUNGS) if name not in without)]


def repeated(table: Path, target: Path, times: int) -> Path:
    """A CSV of copies: every image of `table` so many times, under other names."""
    target.mkdir(parents=True, exist_ok=True)
    with table.open(newline="", encoding="utf-8-sig") as stream:
        rows = [(row["path"], row["label"]) for row in csv.DictReader(stream)]
    listed = []
    for turn in range(times):
        for number, (path, label) in enumerate(rows):
            copy = target / f"{turn}-{number}{Path(path).suffix}"
            shutil.copyfile(table.parent / path, copy)
            listed.append((copy.name, label))
    with (target / "list.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("path", "label"), *listed])
    return target / "list.csv"
