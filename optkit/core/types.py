"""What travels between the rooms: formats, preprocessing, specs, artifacts, manifests, measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from optkit.core.progress import Reporter

MANIFEST = "manifest.json"


class Format(StrEnum):
    """What an artifact's main file is."""

    TORCH = "torch"
    ONNX = "onnx"
    ENGINE = "engine"
    IMAGES = "images"  # which images to calibrate with, no model file
    RESULT = "result"  # measurements only, no model file

    @property
    def filename(self) -> str:
        names = {
            "torch": "model.safetensors",
            "onnx": "model.onnx",
            "engine": "engine.plan",
            "images": "calibration.json",
        }
        return names.get(self.value, MANIFEST)

    @property
    def is_model(self) -> bool:
        return self not in (Format.IMAGES, Format.RESULT)


class Precision(StrEnum):
    """Numeric precision of the graph; an engine inherits it (TensorRT 11 networks are strongly typed)."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"
    UNKNOWN = "unknown"  # a bare engine does not say


class Record(BaseModel):
    """Base of everything that is stored: immutable, and strict about unknown keys.

    Validators are built at first use: `optkit --help` needs none of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Preprocess(Record):
    """How an image becomes a model's input; belongs to the model and travels with it.

    `center` resizes the shorter side to `size / crop_pct` and crops the middle; `squash` resizes the
    whole image to the square. `mean` and `std` are in units of [0, 1] RGB. Input is float32 NCHW.
    """

    size: int = Field(gt=0, le=4096)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    crop_mode: Literal["center", "squash"] = "center"


class TrainedOn(Record):
    """Which images a model was trained on, as hashes of their identities (`ImageSet.hashes`).

    `sample` are the 64 smallest: images of a set that are among them give away that the model saw the set.
    `boundaries` has the smallest of every class when the smaller ones were held out by our split, so that any
    image below it was not trained on; it is empty when the source came with its own validation images.
    """

    sample: tuple[str, ...]
    boundaries: dict[str, str] = {}


class HeadSpec(Record):
    """A head other than the architecture's own: pooling, hidden layers, dropout, then one linear layer.

    `pooling` None keeps the architecture's; `flatten` takes the whole feature map. Every hidden layer is
    linear, ReLU, dropout; `dropout` also precedes the last layer.
    """

    pooling: Literal["avg", "max", "catavgmax", "flatten"] | None = None
    hidden: tuple[int, ...] = ()
    dropout: float = Field(default=0.0, ge=0, lt=1)


class ModelSpec(Record):
    """Enough to rebuild the torch module without unpickling anything.

    `arch` is a timm name. `pruning` maps module names to the widths that pruning left
    (`{"blocks.0.0.conv_pw": {"out_channels": 48, …}}`), None for a dense network; `head` is None for the
    architecture's own. `trained_on` tells the
    sets of images it was trained on, its ancestors included, so that it is never measured on them.
    """

    arch: str
    num_classes: int = Field(gt=0)
    class_names: tuple[str, ...]
    preprocess: Preprocess
    pruning: dict[str, dict[str, int]] | None = None
    head: HeadSpec | None = None
    trained_on: tuple[TrainedOn, ...] = ()

    def also_trained_on(self, images: TrainedOn) -> ModelSpec:
        """This spec after more training, on `images`."""
        known = images in self.trained_on
        return self if known else self.model_copy(update={"trained_on": (*self.trained_on, images)})


class Measurement(Record):
    """One measured quantity: its raw samples, their unit, or why there are none."""

    name: str
    unit: str
    samples: tuple[float, ...] = ()
    conditions: dict[str, Any] = {}
    not_measured: str | None = None


class FileEntry(Record):
    """Digest and size of one file of an artifact."""

    sha256: str
    size_bytes: int


class Manifest(Record):
    """What an artifact is and how it came to be. Written by `core.store` alone."""

    schema_version: int = 1
    stage: str
    key: str
    format: Format
    precision: Precision = Precision.FP32
    spec: ModelSpec | None = None
    config: dict[str, Any] = {}
    inputs: dict[str, list[str]] = {}
    metrics: dict[str, Any] = {}
    measurements: tuple[Measurement, ...] = ()
    history: tuple[dict[str, Any], ...] = ()
    details: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    files: dict[str, FileEntry] = {}
    machine: dict[str, Any] = {}
    packages: dict[str, str] = {}
    created: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Artifact:
    """A cheap handle on a committed artifact."""

    key: str
    path: Path
    manifest: Manifest

    @property
    def format(self) -> Format:
        return self.manifest.format

    @property
    def precision(self) -> Precision:
        return self.manifest.precision

    @property
    def spec(self) -> ModelSpec:
        if self.manifest.spec is None:
            raise ValueError(f"{self.path} holds results, not a model")
        return self.manifest.spec

    @property
    def file(self) -> Path:
        """The model file, or what stands in its place."""
        return self.path / self.format.filename


@dataclass(frozen=True)
class Output:
    """What a stage hands back; the files it wrote lie in `Context.workdir`.

    `metrics` are single figures (`top1` in 0…1, `macs`, `params`), `history` one row per training epoch,
    `details` whatever else the report may draw, as JSON.
    """

    format: Format
    precision: Precision = Precision.FP32
    spec: ModelSpec | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    history: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a stage may use besides its config and inputs.

    Only what lies in `workdir` when the stage returns becomes part of the artifact. What lies in `scratch`
    outlives a killed run: the next one of the same key finds it there, and a finished one removes it. None:
    nothing outlives this run.
    """

    workdir: Path
    reporter: Reporter
    scratch: Path | None = None
