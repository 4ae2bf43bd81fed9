"""A run folder as `optkit run` leaves it, with made-up figures, committed through the store."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from optkit.core.store import Store, copy_artifact
from optkit.core.types import Format, Manifest, Measurement, ModelSpec, Precision, Preprocess
from optkit.report.collect import collect
from optkit.report.schema import Report

CLASSES = ("cat", "dog", "<script>alert(1)</script>")
NO_GPU = "no CUDA device: an engine runs on the GPU it was built for"
IMAGES = 360


class RunFolder:
    """Builds artifacts and shows each under its step's name in a run folder."""

    def __init__(self, root: Path) -> None:
        self.path = root / "runs" / "example"
        self.path.mkdir(parents=True)
        self._store = Store(root / "store")
        self._spec = ModelSpec(
            arch="tf_efficientnet_lite0",
            num_classes=len(CLASSES),
            class_names=CLASSES,
            preprocess=Preprocess(size=128),
        )

    def add(
        self,
        name: str,
        stage: str,
        format: Format,
        size: int = 0,
        files: dict[str, bytes] | None = None,
        **fields: Any,
    ) -> str:
        """Commit one artifact with a model file of `size` bytes and other `files`; returns its key."""
        key = f"{name:0<16}"[:16]
        manifest = Manifest(
            stage=stage,
            key=key,
            format=format,
            spec=None if format is Format.RESULT else self._spec,
            **{"seconds": 12.5, "config": {"seed": 0}, **fields},
        )
        with self._store.workdir(key) as workdir:
            if size:
                (workdir / format.filename).write_bytes(bytes(size))
            for path, content in (files or {}).items():
                (workdir / path).parent.mkdir(parents=True, exist_ok=True)
                (workdir / path).write_bytes(content)
            artifact = self._store.commit(workdir, manifest)
        copy_artifact(artifact, self.path / name)
        return key

    def edit(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change a step's manifest."""
        edit(self.path / name, change)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest as a person or another version would."""
    path = folder / "manifest.json"
    value = json.loads(path.read_text())
    change(value)
    path.unlink()  # the store's copy is the same file
    path.write_text(json.dumps(value))


def bench_row(name: str, key: str, **fields: Any) -> dict[str, Any]:
    """A row as `bench` writes it."""
    row = {
        "name": name,
        "key": key,
        "format": "onnx",
        "precision": "fp32",
        "runtime": "onnxruntime",
        "batch": 1,
        "latency_ms": None,
        "throughput": None,
        "top1": None,
        "top1_interval": None,
        "n": IMAGES,
        "macs": None,
        "params": None,
        "size_bytes": None,
        "agreement": None,
        "not_measured": {},
        "facts": {"provider": "CPUExecutionProvider", "threads": 2},
    }
    return {**row, **fields}


def latency(p50: float) -> dict[str, float]:
    return {"p50": p50, "p90": 1.2 * p50, "p99": 1.6 * p50}


def answers(key: str, runtime: str, wrong: Iterable[int]) -> Measurement:
    """Which of the images a model got right, as `bench` keeps it."""
    samples = tuple(float(image not in set(wrong)) for image in range(IMAGES))
    return Measurement(
        name="top1", unit="1 if right", samples=samples, conditions={"key": key, "runtime": runtime}
    )


def history(epochs: int, final: float) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "epoch": epoch,
            "phase": "head" if epoch < 3 else "blocks",
            "loss": 2.2 / (1 + epoch) + 0.05,
            "lr": 1e-3 / (1 + epoch),
            "train_top1": final + 0.01 - 0.4 / (1 + epoch) ** 1.5,
            "images_per_s": 140.0,
            "val_loss": 2.0 / (1 + epoch) + 0.12 if epoch % 2 else None,
            "val_top1": final - 0.35 / (1 + epoch) ** 1.5,
        }
        for epoch in range(epochs)
    )


def photo(format: str = "JPEG", size: int = 96, hue: int = 0, width: int | None = None) -> bytes:
    """A small picture with a disc in it."""
    image = Image.new("HSV", (width or size, size * 3 // 4), (hue, 90, 170))
    ImageDraw.Draw(image).ellipse((size // 4, size // 5, size * 3 // 4, size * 3 // 5), fill=(hue, 200, 230))
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format)
    return stream.getvalue()


def evaluation(
    names: Sequence[str], images: int = 50, mistakes: int = 4
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics and details as `evaluate` writes them: of each class's `images`, some go to the next classes."""
    classes = len(names)
    confusion = [[0] * classes for _ in names]
    for label, row in enumerate(confusion):
        wrong = label % min(images, 7)
        row[(label + 1) % classes] = wrong
        row[label] += images - wrong
    guessed = [sum(row[index] for row in confusion) for index in range(classes)]
    per_class = [
        {
            "class": name,
            "n": images,
            "recall": confusion[i][i] / images,
            "precision": confusion[i][i] / guessed[i] if guessed[i] else 0.0,
            "f1": 2 * confusion[i][i] / (images + guessed[i]),
            "confused_with": names[(i + 1) % classes] if i % min(images, 7) else None,
        }
        for i, name in enumerate(names)
    ]
    n = classes * images
    top1 = sum(row[index] for index, row in enumerate(confusion)) / n
    shares = {"top1": top1, "precision": top1, "recall": top1, "f1": top1 - 0.001, "ece": 0.021, "loss": 0.31}
    intervals = {
        f"{name}_interval": [value - 0.012, min(1.0, value + 0.011)] for name, value in shares.items()
    }
    pairs = [
        (label, guess) for label, row in enumerate(confusion) for guess, n in enumerate(row) for _ in range(n)
    ]
    details = {
        "class_names": list(names),
        "per_class": per_class,
        "confusion": confusion if classes <= 100 else None,
        "labels": [label for label, _ in pairs],
        "predictions": [guess for _, guess in pairs],
        "files": [f"val/{index}.jpg" for index in range(n)],
        "mistakes": [
            {
                "file": f"val/{names[index % classes]}/IMG_{index:04d}.jpg",
                "image": f"mistakes/{index:02d}.jpg",
                "label": names[index % classes],
                "prediction": names[(index + 1) % classes],
                "p": 0.99 - 0.03 * index,
            }
            for index in range(mistakes)
        ],
        "runtime": "onnxruntime",
        "facts": {"threads": 2},
    }
    return {**shares, **intervals, "n": n}, details


def data_card(names: Sequence[str]) -> dict[str, Any]:
    """`details["data"]` as a training stage writes it."""
    counts = {name: [900 // (1 + index), 450 // (1 + index)] for index, name in enumerate(names)}
    return {
        "classes": len(names),
        "train": sum(train for train, _ in counts.values()),
        "val": sum(val for _, val in counts.values()),
        "held_out": True,
        "corrupt": [{"file": "cat/broken.jpg", "reason": "0 bytes"}],
        "corrupt_count": 1,
        "per_class": counts,
        "imbalance": float(len(names)),
        "images": {
            "sampled": 200,
            "formats": {"JPEG": 198, "PNG": 2},
            "width": {"min": 41, "median": 500, "max": 1050},
            "height": {"min": 32, "median": 374, "max": 702},
        },
        "leaks": {
            "exact": 1,
            "near": 1,
            "contradictory": 2,
            "checked": 1350,
            "pairs": [["cat/1.jpg", "cat/9.jpg", "exact"], ["dog/2.jpg", "dog/7.jpg", "near"]],
        },
    }


def ladder() -> dict[str, Any]:
    """`details` of a `quantize` step that climbed the ladder; the figures are made up."""
    rungs = [
        ("calibration", 19.8, 0.971, 14.2, "mse for 61 tensors, minmax for 33", _checked(19.1, 0.966, 0.4)),
        ("equalisation", 17.1, 0.952, 6.0, "no pair of layers without a SiLU between them", None),
        ("bias correction", 21.2, 0.978, 9.1, "", _checked(20.6, 0.974, 0.3)),
        (
            "rounding",
            24.3,
            0.988,
            96.5,
            "<b>AdaRound</b>: 49 layers, then 16 blocks",
            _checked(23.6, 0.984, 0.1),
        ),
        ("mixed precision", 24.4, 0.988, 21.0, "0.1 dB is not worth 8 % of the latency", None),
        ("QAT", 25.0, 0.99, 210.0, "2 epochs", _checked(24.6, 0.989, -0.05)),
    ]
    nodes = [
        f"/blocks/blocks.{index // 4}/blocks.{index // 4}.{index % 4}/conv_pw/Conv" for index in range(38)
    ]
    nodes[0] = "/conv_stem/<script>alert(4)</script>/" + 12 * "a_very_long_name/" + "Conv"
    left = [{"node": node, "op": "Conv", "reason": "costs most accuracy"} for node in nodes[:2]]
    left += [
        {"node": f"/se/{index}", "op": "Sigmoid", "reason": "the runtime has no kernel"}
        for index in range(16)
    ]
    return {
        "target": "onnxruntime",
        "quantized": {"Conv": 47, "Add": 9, "Gemm": 1},
        "float": left,
        "sensitivity": [
            {"node": node, "op": "Conv", "sqnr_db": 24.0 + 0.6 * index} for index, node in enumerate(nodes)
        ],
        "ladder": [
            {
                "rung": rung,
                "kept": checked is not None,
                "sqnr_db": sqnr_db,
                "agreement": agreement,
                "drop": checked and checked["drop"],
                "validation": checked,
                "seconds": seconds,
                "note": note,
            }
            for rung, sqnr_db, agreement, seconds, note, checked in rungs
        ],
        "validation": rungs[-1][-1],
        "held_images": 100,
        "set_aside": True,
        "speed": {
            "runtime": "onnxruntime",
            "fp32_runtime": "openvino",
            "device": "cpu",
            "batch": 1,
            "fp32_ms": 6.6,
            "int8_ms": 4.1,
            "ratio": 0.62,
            "interval": [0.58, 0.66],
            "threads": 2,
            "verdict": "faster",
        },
        "float_prefix": [
            {
                "layers": 2,
                "until": "/stem",
                "ms": 4.4,
                "ratio": 0.67,
                "interval": [0.64, 0.7],
                "chosen": False,
            },
            {
                "layers": 9,
                "until": "/<i>",
                "ms": 4.0,
                "ratio": 0.61,
                "interval": [0.58, 0.64],
                "chosen": True,
            },
        ],
        "budget": {"max_drop": 0.5, "min_agreement": None, "min_sqnr": 24.0, "held": True},
    }


def _checked(sqnr_db: float, agreement: float, drop: float) -> dict[str, Any]:
    interval = [round(drop - 0.8, 2), round(drop + 0.8, 2)]
    return {"sqnr_db": sqnr_db, "agreement": agreement, "drop": drop, "drop_interval": interval}


def sixteen_bit() -> dict[str, Any]:
    """`details` of a `quantize` step to FP16; the figures are made up."""
    kept = [("/head/Mul", "Mul", "its activation 'y' reaches 8.12e+04; above 8188 it may overflow")]
    kept += [(f"/norm/{index}", "LpPool", "it sums squares, which overflow first") for index in range(2)]
    return {
        "target": "tensorrt",
        "precision": "fp16",
        "quantized": {"Conv": 47, "Mul": 9},
        "float": [dict(zip(("node", "op", "reason"), one, strict=True)) for one in kept],
        "validation": _checked(62.0, 1.0, 0.0),
        "validated_by": "emulation: every result rounded to FP16",
        "limit": 8188.0,
        "largest_activation": {"tensor": "/head/<b>y</b>", "value": 81234.5},
        "largest_sum": {"node": "/head/Gemm", "value": 90123.0},
        "images": 300,
    }


def quantised(run: RunFolder, details: dict[str, Any], precision: Precision = Precision.INT8) -> Report:
    """The report of an ONNX file and of a quantised one with these details."""
    onnx = run.add("onnx", "export", Format.ONNX, size=1)
    run.add(
        "int8",
        "quantize",
        Format.ONNX,
        size=1,
        precision=precision,
        inputs={"model": [onnx]},
        metrics={"params": 7},
        details=details,
    )
    return collect(run.path)
