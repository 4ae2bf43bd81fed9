from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from optkit.measure import dense, roofline
from optkit.measure.dense import Dense, cpu_kernels
from optkit.measure.roofline import measure_ceilings


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little memory and small matrices: quick, and not what the machine can."""
    monkeypatch.setattr(roofline, "MOST_BYTES", 8 << 20)
    monkeypatch.setattr(dense, "SIZES", (128,))


def test_both_ceilings_are_measured(small: None) -> None:
    found = measure_ceilings(("fp32", "int8", "fp64"), 1, 0.1)
    assert found.macs_per_s.keys() == {"fp32", "int8"}
    assert 1e8 < found.macs_per_s["fp32"] < 1e14
    assert 1e8 < found.bytes_per_s < 1e13
    assert found.not_measured == {"fp64": "no kernel that computes in fp64 is at hand"}
    assert "128³" in found.how
    assert "copies of 4 MiB" in found.how
    assert json.loads(json.dumps(found.row()))["threads"] == 1


def test_the_best_kernel_stands_for_a_precision(monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    asked = []

    def kernels(precision: str, threads: int) -> list[Dense]:
        asked.append((precision, threads))
        return [Dense("slow", 10**6, lambda: sum(range(10_000))), Dense("quick", 10**9, lambda: None)]

    monkeypatch.setattr(roofline, "cpu_kernels", kernels)
    found = measure_ceilings(("int8",), 2, 0.02)
    assert asked == [("int8", 2)]
    assert "int8: quick" in found.how
    assert found.macs_per_s["int8"] > 1e12


def test_memory_is_copied_by_as_many_threads(monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    copy, threads, copied = np.copyto, set(), []

    def noted(target: np.ndarray, source: np.ndarray) -> None:
        threads.add(threading.get_ident())
        copied.append(len(source))
        copy(target, source)

    monkeypatch.setattr(np, "copyto", noted)
    monkeypatch.setattr(roofline, "cpu_kernels", lambda precision, threads: [])
    assert measure_ceilings(("fp32",), 3, 0.3).threads == 3
    assert set(copied) == {(8 << 20) // 6}
    assert 1 < len(threads) <= 3


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_kernel_is_given_its_threads(precision: str, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    given = []
    start = onnxruntime.InferenceSession

    def noted(model: bytes, options: onnxruntime.SessionOptions, providers: list[str]) -> object:
        given.append(options.intra_op_num_threads)
        return start(model, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    found = cpu_kernels(precision, 1)
    for kernel in found:
        kernel.call()
        assert kernel.macs == 128**3
    assert {kernel.name.split()[0] for kernel in found} >= {"onnxruntime"}
    assert given == [1]


def test_the_cache_and_the_free_memory_are_known() -> None:
    assert roofline.last_level_cache() >= roofline.USUAL_CACHE
    assert roofline.free_memory() > 1 << 20


def test_no_more_than_a_share_of_the_free_memory_is_taken(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "free_memory", lambda: 8 << 20)
    monkeypatch.setattr(roofline, "cpu_kernels", lambda precision, threads: [])
    assert "copies of 1 MiB" in measure_ceilings((), 1, 0.02).how
