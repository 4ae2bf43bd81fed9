"""A run folder as `optkit run` leaves it, with made-up figures, committed through the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from optkit.core.store import Store, copy_artifact
from optkit.core.types import Format, Manifest, Measurement, ModelSpec, Preprocess

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

    def add(self, name: str, stage: str, format: Format, size: int = 0, **fields: Any) -> str:
        """Commit one artifact with a model file of `size` bytes; returns its key."""
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
            artifact = self._store.commit(workdir, manifest)
        copy_artifact(artifact, self.path / name)
        return key

    def edit(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change a manifest as a person or another version would."""
        path = self.path / name / "manifest.json"
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
            "val_loss": 2.0 / (1 + epoch) + 0.12 if epoch % 2 else None,
            "val_top1": final - 0.35 / (1 + epoch) ** 1.5,
        }
        for epoch in range(epochs)
    )
