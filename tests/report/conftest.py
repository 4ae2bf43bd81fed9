"""Run folders for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from optkit.core.types import Format, Precision
from optkit.report.schema import Report

from .run_folder import (
    CLASSES,
    IMAGES,
    NO_GPU,
    RunFolder,
    answers,
    bench_row,
    data_card,
    evaluation,
    history,
    ladder,
    latency,
    photo,
    quantised,
)


@pytest.fixture
def empty_run(tmp_path: Path) -> RunFolder:
    """A run folder without artifacts."""
    return RunFolder(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """The quickstart's story: teacher, student, pruned, FP32 and INT8 ONNX, engine, bench."""
    run = RunFolder(tmp_path)
    teacher = run.add(
        "teacher",
        "finetune",
        Format.TORCH,
        size=24_000,
        history=history(8, 0.985),
        warnings=("trained from scratch: no pretrained weights of <b>lite2</b> could be had",),
    )
    student = run.add(
        "student",
        "distill",
        Format.TORCH,
        size=18_000,
        history=history(10, 0.98),
        seconds=74.0,
        inputs={"teacher": [teacher]},
        metrics={"top1": 0.975, "n": IMAGES},
    )
    pruned = run.add(
        "pruned",
        "prune",
        Format.TORCH,
        size=9_000,
        history=history(6, 0.975),
        inputs={"model": [student]},
        details={"widths_before": 1280, "widths_after": 912},
    )
    onnx = run.add("onnx", "export", Format.ONNX, size=9_100, inputs={"model": [pruned]})
    int8 = run.add(
        "int8",
        "quantize",
        Format.ONNX,
        size=2_400,
        precision=Precision.INT8,
        inputs={"model": [onnx]},
        metrics={"sqnr_db": 21.4},
        details={
            "calibrator": "mse",
            "images": 300,
            "classes_covered": "10 of 10",
            "layers": [
                {"layer": f"blocks.{index}.conv_pw", "scale": 0.0123 * (index + 1), "sqnr_db": 30.0 - index}
                for index in range(30)
            ],
            "left_in_float": ["classifier"],
        },
    )
    engine = run.add(
        "engine",
        "export",
        Format.ENGINE,
        size=3_100,
        precision=Precision.INT8,
        inputs={"model": [int8]},
        details={"flavour": "tensorrt_rtx", "version": "1.7.1", "compute_capability": "8.9"},
    )
    fp32 = {"macs": 128_400_000, "params": 3_380_000}
    small = {"macs": 66_100_000, "params": 1_710_000}
    rows = [
        bench_row(
            "teacher",
            teacher,
            format="torch",
            runtime="pytorch",
            latency_ms=latency(41.3),
            throughput=24.2,
            top1=0.9833,
            top1_interval=[0.9641, 0.9923],
            macs=291_000_000,
            params=4_870_000,
            size_bytes=19_700_000,
            agreement=1.0,
        ),
        bench_row(
            "student",
            student,
            format="torch",
            runtime="pytorch",
            latency_ms=latency(22.8),
            throughput=43.9,
            top1=0.9806,
            top1_interval=[0.9604, 0.9905],
            size_bytes=13_700_000,
            agreement=0.983,
            **fp32,
        ),
        bench_row(
            "pruned",
            pruned,
            format="torch",
            runtime="pytorch",
            latency_ms=latency(15.1),
            throughput=66.2,
            top1=0.975,
            top1_interval=[0.9532, 0.9868],
            size_bytes=7_000_000,
            agreement=0.975,
            **small,
        ),
        bench_row(
            "onnx",
            onnx,
            latency_ms=latency(3.42),
            throughput=292.0,
            top1=0.975,
            top1_interval=[0.9532, 0.9868],
            size_bytes=6_950_000,
            agreement=0.975,
            indicative=["p99"],
            **small,
        ),
        bench_row(
            "int8",
            int8,
            precision="int8",
            latency_ms=latency(1.63),
            throughput=613.0,
            top1=0.9722,
            top1_interval=[0.9496, 0.9849],
            size_bytes=1_810_000,
            agreement=0.972,
            indicative=["p99"],
            **small,
        ),
        bench_row(
            "engine",
            engine,
            format="engine",
            precision="int8",
            runtime="tensorrt",
            n=None,
            size_bytes=2_600_000,
            facts={},
            not_measured=dict.fromkeys(("latency_ms", "throughput", "top1", "agreement"), NO_GPU)
            | dict.fromkeys(("macs", "params"), "an engine does not say"),
        ),
    ]
    keys = [teacher, student, pruned, onnx, int8, engine]
    wrong = [range(6), (*range(5), 10, 11), (*range(4), *range(10, 15))]
    wrong += [wrong[2], (*wrong[2], 15)]
    right = [answers(row["key"], row["runtime"], images) for row, images in zip(rows[:5], wrong, strict=True)]
    run.add(
        "bench", "bench", Format.RESULT, inputs={"models": keys}, details={"rows": rows}, measurements=right
    )
    (run.path / "recipe.yaml").write_text("name: example\nsteps:\n  teacher: {stage: finetune}  # <recipe>\n")
    return run


@pytest.fixture
def tutorial(tmp_path: Path) -> RunFolder:
    """The fine-tuning story: training with a learning-rate finder, evaluation, explanation."""
    run = RunFolder(tmp_path)
    rates = [10 ** (-6 + 0.1 * index) for index in range(60)]
    losses = [0.6 + 0.5 / (1 + (rate / 1e-3) ** 2) + (rate / 0.05) ** 3 for rate in rates]
    model = run.add(
        "model",
        "finetune",
        Format.TORCH,
        size=16_000_000,
        history=history(10, 0.985),
        seconds=214.0,
        metrics={"macs": 386_000_000, "params": 4_010_000},
        details={
            "data": data_card(CLASSES),
            "lr_finder": {"lr": rates, "loss": losses, "suggestion": 1.2e-3},
        },
    )
    metrics, details = evaluation(CLASSES, images=250, mistakes=6)
    run.add(
        "evaluate",
        "evaluate",
        Format.RESULT,
        inputs={"model": [model]},
        config={"split": "val"},
        metrics=metrics,
        details=details,
        files={f"mistakes/{index:02d}.jpg": photo(hue=30 * index) for index in range(6)},
    )
    maps = [
        {**mistake, "image": mistake["image"].replace("mistakes", "maps").replace("jpg", "png")}
        | {"prediction_other": "cat", "p_other": 0.625, "iou": 0.5}
        for mistake in details["mistakes"]
    ]
    run.add(
        "explain",
        "explain",
        Format.RESULT,
        inputs={"model": [model]},
        metrics={"agreement": 0.91},
        details={"maps": maps},
        files={f"maps/{index:02d}.png": photo("PNG", hue=30 * index, width=220) for index in range(6)},
    )
    return run


@pytest.fixture
def climbed(empty_run: RunFolder) -> Report:
    """The report of a model that climbed the recovery ladder."""
    return quantised(empty_run, {"quantization": ladder()})
