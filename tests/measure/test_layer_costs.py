from __future__ import annotations

import json
from dataclasses import replace

import pytest

from optkit.measure.counts import Cost, Layer
from optkit.measure.layer_costs import ABOVE_LIMIT, layer_rows
from optkit.measure.roofline import Ceilings
from optkit.runtimes._kernels import KernelTime

# 1 MAC takes 1 ns in FP32 and 0.1 ns in INT8, 1 byte 1 ns.
CEILINGS = Ceilings({"fp32": 1e9, "int8": 1e10}, 1e9, "cpu", 1, "made up")
CONV = Layer("conv", "Conv", 4_000_000, 10, 10, 1_000_000, 500_000, "fp32")
HEAD = Layer("head", "Gemm", 1_000_000, 10, 10, 2_000_000, 10_000, "fp32")
COST = Cost(5_000_000, 20, 20, 3_000_000, 510_000, [CONV, HEAD], {}, {})
KERNELS = [
    KernelTime("reorder", "Reorder", 1.0),
    KernelTime("conv+relu", "Conv", 8.0),
    KernelTime("silu", "Mul", 3.0),
    KernelTime("reorder_2", "Reorder", 1.0),
    KernelTime("gemm", "Gemm", 1.0),
]
NODES = {
    "reorder": (),
    "conv+relu": ("conv", "relu"),
    "silu": ("mul",),
    "reorder_2": (),
    "gemm": ("head",),
}


def test_times_work_and_limits() -> None:
    found = layer_rows(COST, KERNELS, NODES, 2.0, CEILINGS)
    json.dumps(found, allow_nan=False)
    assert found["total_ms"] == 16.0
    assert (found["unmapped_ms"], found["counted_ms"], found["without_time"]) == (2.0, 9.0, [])
    reorder, conv, silu, head = found["layers"]
    assert conv == {
        "name": "conv",
        "type": "Conv",
        "precision": "fp32",
        "ms": 8.0,
        "share": 0.5,
        "macs": 4_000_000,
        "bytes": 1_500_000,
        "macs_per_byte": pytest.approx(8 / 3),
        "limit_ms": 4.0,
        "of_limit": 0.5,
        "bound": "compute",
    }
    assert (head["bound"], head["limit_ms"], head["of_limit"]) == ("memory", 2.01, 2.01)
    assert found["note"] == ABOVE_LIMIT
    assert found["limit_ms"] == pytest.approx(6.01)
    assert found["of_limit"] == pytest.approx(6.01 / 16)
    assert (silu["name"], silu["type"], silu["ms"], silu["macs"]) == ("mul", "Mul", 3.0, 0)
    assert silu["limit_ms"] is silu["of_limit"] is silu["bound"] is None
    assert (reorder["name"], reorder["ms"]) == ("Reorder (added by the runtime)", 2.0)


def test_a_batch_has_its_activations_as_often_and_its_weights_once() -> None:
    conv = layer_rows(COST, KERNELS, NODES, 0.0, CEILINGS, batch=8)["layers"][1]
    assert (conv["macs"], conv["bytes"]) == (32_000_000, 5_000_000)
    assert conv["limit_ms"] == 32.0


def test_the_limit_is_that_of_the_precision_that_is_executed() -> None:
    kernels = [KernelTime("conv+relu", "Conv", 8.0, (), "int8"), KernelTime("gemm", "Gemm", 4.0)]
    found = layer_rows(COST, kernels, NODES, 0.0, CEILINGS)
    assert (found["layers"][0]["limit_ms"], found["layers"][0]["bound"]) == (1.5, "memory")
    assert found["note"] == ""
    unknown = [KernelTime("conv+relu", "Conv", 8.0, (), "fp8"), KernelTime("gemm", "Gemm", 4.0)]
    assert layer_rows(COST, unknown, NODES, 0.0, CEILINGS)["limit_ms"] is None


def test_without_ceilings_there_are_times_alone() -> None:
    found = layer_rows(COST, KERNELS, NODES, 2.0, None)
    assert found["of_limit"] is None
    assert all(row["limit_ms"] is None for row in found["layers"])


def test_without_the_ceiling_of_the_memory_there_are_no_limits() -> None:
    found = layer_rows(COST, KERNELS, NODES, 2.0, replace(CEILINGS, bytes_per_s=None))
    assert found["limit_ms"] is None
    assert all(row["limit_ms"] is row["bound"] is None for row in found["layers"])


def test_layers_in_one_kernel_and_kernels_of_one_layer() -> None:
    together = [KernelTime("both", "Layer", 5.0), KernelTime("again", "Layer", 1.0)]
    found = layer_rows(COST, together, {"both": ("conv", "head"), "again": ("head",)}, 0.0, CEILINGS)
    (row,) = found["layers"]
    assert (row["name"], row["ms"], row["macs"]) == ("conv + head", 6.0, COST.macs)


def test_a_layer_without_a_kernel_is_named() -> None:
    found = layer_rows(COST, KERNELS[:-1], NODES, 0.0, CEILINGS)
    assert found["without_time"] == ["head"]
