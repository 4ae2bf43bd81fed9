"""A bench manifest with everything in it, in the form that `bench` writes; the figures are made up."""

from __future__ import annotations

import random
from typing import Any

from optkit.core.types import Format, Measurement, Precision

from .run_folder import CLASSES, IMAGES, RunFolder, bench_row, photo

EVIL = CLASSES[2]
CALLS, ROUNDS = 310, 31
LAYERS = 39  # that are counted
NO_COUNTER = "the processor's energy counter is not readable here"
REFUSED = {"p99": f"needs 662 calls, has {CALLS}", "p99.9": f"needs 6636 calls, has {CALLS}"}
MODELS = {  # name: runtime, precision, p50 in ms, bytes, MACs, images that it gets wrong
    "fp32": ("onnxruntime", "fp32", 4.21, 16_200_000, 386_000_000, range(12)),
    "pruned": ("onnxruntime", "fp32", 2.73, 9_100_000, 214_000_000, (*range(10), *range(40, 46))),
    "int8": ("onnxruntime", "int8", 1.36, 4_300_000, 386_000_000, (*range(9), *range(20, 24))),
    "int8-ov": ("openvino:throughput", "int8", 4.16, 4_300_000, 386_000_000, (*range(9), *range(20, 23))),
}


def full_bench(run: RunFolder, **changes: Any) -> dict[str, str]:
    """Four models, their bench and a gate; `changes` replace parts of the bench's details. Returns the keys."""
    keys: dict[str, str] = {}
    for name, (_, precision, _, size, _, _) in MODELS.items():
        keys[name] = run.add(
            name,
            "quantize" if precision == "int8" else "prune" if name == "pruned" else "export",
            Format.ONNX,
            size=size // 1000,
            precision=Precision(precision),
            inputs={"model": [keys["fp32"]]} if keys else {},
        )
    run.add(
        "bench",
        "bench",
        Format.RESULT,
        inputs={"models": list(keys.values())},
        config={"data": {"path": "photos"}, "seed": 0},
        details=bench_details(keys) | changes,
        measurements=measurements(keys),
        files={f"flips/{index:03d}.jpg": photo(hue=23 * index) for index in range(14)},
        seconds=64.0,
    )
    return keys


def bench_details(keys: dict[str, str]) -> dict[str, Any]:
    """All that the manifest's `details` hold."""
    return {
        "rows": [_row(name, keys[name]) for name in MODELS],
        "comparisons": [_comparison(name, keys) for name in list(MODELS)[1:]],
        "flips": [_flips(name, keys[name]) for name in list(MODELS)[1:]],
        "layers": [_layers("fp32", keys, 1.0), _layers("int8", keys, 0.34)],
        "roofline": {
            "macs_per_s": {"fp32": 1.9e11, "int8": 6.4e11},
            "bytes_per_s": 2.3e10,
            "device": "cpu",
            "threads": 2,
            "how": "a matrix product, and a sum over 256 MB",
        },
        "trace": {
            "columns": ["seconds", "runnable", "mhz", "cgroup_throttles"],
            "rows": [[0.5 * step, 1.8 + 0.1 * (step % 5), 2900 - 3 * (step % 40), 0] for step in range(90)],
            "gaps": {"celsius": "/sys/class/thermal <is> empty", "gpu_mhz": "no GPU", "gpu_watts": "no GPU"},
        },
        "failed": [
            {"name": "broken", "runtime": "openvino", "why": f"the process ended with signal 11 {EVIL}"}
        ],
        "interrupted": False,
    }


def _row(name: str, key: str) -> dict[str, Any]:
    runtime, precision, p50, size, macs, wrong = MODELS[name]
    top1 = 1 - len(wrong) / IMAGES
    percentiles = {"p50": p50, "p90": 1.2 * p50, "p95": 1.4 * p50}
    return bench_row(
        name,
        key,
        precision=precision,
        runtime=runtime,
        computes=True,
        samples=CALLS,
        latency_ms=percentiles,
        latency_intervals={which: [0.97 * ms, 1.04 * ms] for which, ms in percentiles.items()},
        refused=REFUSED,
        throughput=1000 / p50,
        offline={"images_per_s": 1700 / p50, "interval": [1650 / p50, 1740 / p50], "streams": 2, "batch": 8},
        server={"bound_ms": 15.0, "percentile": "p99", "queries_per_s": 900 / p50, "streams": 2},
        memory={"peak_rss_bytes": 210_000_000 + size, "rss_before_bytes": 140_000_000, "gpu_bytes": None},
        energy=None,
        top1=top1,
        top1_interval=[top1 - 0.02, min(1.0, top1 + 0.012)],
        ece=0.021 if name != "int8-ov" else None,
        ece_interval=[0.014, 0.033] if name != "int8-ov" else None,
        agreement=0.981,
        macs=macs,
        params=macs / 100,
        activations=6_700_000,
        size_bytes=size,
        not_measured={"energy": NO_COUNTER} | ({"ece": "no <probabilities>"} if name == "int8-ov" else {}),
    )


def _comparison(name: str, keys: dict[str, str]) -> dict[str, Any]:
    ratio = MODELS[name][2] / MODELS["fp32"][2]
    low, high = 0.97 * ratio, 1.03 * ratio
    return {
        "name": name,
        "key": keys[name],
        "runtime": MODELS[name][0],
        "batch": 1,
        "reference": {"name": "fp32", "key": keys["fp32"], "runtime": "onnxruntime"},
        "ratio": ratio,
        "interval": [low, high],
        "confidence": 0.95,
        "verdict": "faster" if high < 1 else "slower" if low > 1 else "cannot tell",
        "rounds": ROUNDS,
        "seconds": 20.0,
    }


def _flips(name: str, key: str) -> dict[str, Any]:
    before, after = set(MODELS["fp32"][-1]), set(MODELS[name][-1])
    lost, won = len(after - before), len(before - after)
    return {
        "name": name,
        "key": key,
        "runtime": MODELS[name][0],
        "reference": "fp32",
        "n": IMAGES,
        "lost": lost,
        "won": won,
        "p_value": 0.7,
        "drop": (lost - won) / IMAGES,
        "interval": [-0.01, 0.014],
        "by_class": [
            {"class": CLASSES[0], "n": 120, "lost": lost - 1, "won": 0},
            {"class": EVIL, "n": 120, "lost": 1, "won": won},
        ],
        "images": [_flip(index, won=index % 4 == 3) for index in range(14 if name == "int8" else 4)],
    }


def _flip(index: int, won: bool) -> dict[str, Any]:
    right, wrong = CLASSES[0], EVIL
    return {
        "file": f"val/<b>cat</b>/IMG_{index:04d}.jpg",
        "label": right,
        "before": wrong if won else right,
        "after": right if won else wrong,
        "p_before": 0.52 + 0.01 * index,
        "p_after": 0.97 - 0.02 * index,
        "image": f"flips/{index:03d}.jpg",
    }


def _layers(name: str, keys: dict[str, str], scale: float) -> dict[str, Any]:
    layers: list[dict[str, Any]] = []
    for index in range(LAYERS):
        macs, size = 1e6 * (1 + index * 7 % 23), 2e4 * (1 + index * 5 % 17)
        limit = max(macs / 1.9e8, size / 2.3e7) * scale
        ms = limit * (1.4 + index % 3)
        layers.append(
            {
                "name": f"/blocks/blocks.{index // 4}/blocks.{index // 4}.{index % 4}/conv_pw/Conv"
                if index
                else EVIL,
                "type": "Conv",
                "precision": MODELS[name][1],
                "ms": ms,
                "share": ms / 4.2 / scale,
                "macs": macs,
                "bytes": size,
                "macs_per_byte": macs / size,
                "limit_ms": limit,
                "of_limit": limit / ms,
                "bound": "compute" if macs / 1.9e8 > size / 2.3e7 else "memory",
            }
        )
    uncounted = {"macs": 0, "bytes": 0, "macs_per_byte": None, "precision": None}
    uncounted |= {"limit_ms": None, "of_limit": None, "bound": None}
    layers.append({"name": "/pool/Pool", "type": "Pool", "ms": 0.02 * scale, "share": 0.005, **uncounted})
    return {
        "name": name,
        "key": keys[name],
        "runtime": "onnxruntime",
        "batch": 1,
        "total_ms": 4.2 * scale,
        "unmapped_ms": 0.21 * scale,
        "counted_ms": 3.97 * scale,
        "limit_ms": 1.89 * scale,
        "of_limit": 0.45,
        "without_time": [f"/fused/<i>{index}</i>/Conv" for index in range(14)],
        "note": "Above 100 % of its limit, a layer found its data in a cache.",
        "layers": layers,
    }


def measurements(keys: dict[str, str]) -> tuple[Measurement, ...]:
    """Every timed call, and every answer."""
    chance = random.Random(0)
    found = []
    for name, (runtime, _, p50, _, _, wrong) in MODELS.items():
        conditions = {"model": name, "key": keys[name], "runtime": runtime, "threads": 2}
        calls = tuple(p50 * (0.98 + chance.expovariate(30)) for _ in range(CALLS))
        rounds = {
            "batch": 1,
            "rounds": [CALLS // ROUNDS] * ROUNDS,
            "warm_up_calls": 12,
            "warm_up_steady": True,
        }
        found.append(Measurement(name="latency_ms", unit="ms", samples=calls, conditions=conditions | rounds))
        right = tuple(float(image not in set(wrong)) for image in range(IMAGES))
        indices = {"indices": list(range(IMAGES))}
        found.append(
            Measurement(name="top1", unit="1 if right", samples=right, conditions=conditions | indices)
        )
    return tuple(found)


def gate(run: RunFolder, verdict: str = "cannot tell", step: str = "gate", **changes: Any) -> None:
    """A gate on `int8`, as `gate` writes it."""
    details = {
        "verdict": verdict,
        "candidate": "int8",
        "key": f"{'int8':0<16}",
        "runtime": "onnxruntime",
        "batch": 1,
        "baseline": "fp32",
        "baseline_runtime": "onnxruntime",
        "confidence": 0.95,
        "criteria": [
            _criterion("max_drop", 1.5, "points", 0.278, [-1.2, 1.9], verdict, {"images": 900.0}),
            _criterion("min_speedup", 2.0, "times", 3.09, [3.0, 3.19], "pass", None),
            _criterion("max_latency_ms", 5.0, "ms", None, None, "cannot tell", {"seconds": 12.0}),
            _criterion("max_bytes", 4_000_000, "bytes", 4_300_000, None, "fail", None),
            _criterion("min_agreement", 0.97, "share", 0.981, [0.972, 0.99], "pass", None),
        ],
    }
    run.add(step, "gate", Format.RESULT, inputs={"bench": [f"{'bench':0<16}"]}, details=details | changes)


def _criterion(
    name: str,
    limit: float,
    unit: str,
    estimate: float | None,
    interval: list[float] | None,
    verdict: str,
    needs: dict[str, float] | None,
) -> dict[str, Any]:
    found = {"name": name, "limit": limit, "unit": unit, "estimate": estimate, "interval": interval}
    return {
        **found,
        "verdict": verdict,
        "needs": needs,
        "text": f"{name} of 360 images, 4 lost <i>and</i> 3 won",
    }


def estimates(run: RunFolder, key: str, step: str = "estimate") -> None:
    """What `estimate` writes."""
    found = {
        "name": "int8",
        "gpu": "rtx4090",
        "setup": "rtx4090, channels last, <AMP>",
        "layout": "nhwc",
        "compiled": False,
        "torch": "2.0",
        "precision": "fp16 (automatic mixed precision)",
        "images_per_s": 4312.0,
        "ms_per_image": 1000 / 4312.0,
        "range_90": [3600.0, 5200.0],
        "median_error": 0.078,
        "mape": 0.11,
        "n_models": 1214,
        "n_families": 87,
        "batch": 256,
        "beyond": [],
        "word": "estimate",
    }
    beyond = ["61% of the time goes into 'pool', at most <20%> in calibration"]
    others = [
        {**found, "gpu": "rtx3090", "images_per_s": 2431.0, "beyond": beyond},
        {**found, "gpu": "rtx5090", "range_90": None},
    ]
    details = {
        "name": "int8",
        "estimates": [found, *others],
        "basis": "fitted to <published> throughputs in PyTorch, FP16",
        "word": "estimate",
    }
    run.add(step, "estimate", Format.RESULT, inputs={"models": [key]}, details=details)
