from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from optkit.measure import dense, roofline
from optkit.measure.dense import Dense, cpu_kernels
from optkit.measure.roofline import measure_ceilings


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A little cache and small matrices: quick, and not what the machine can."""
    monkeypatch.setattr(roofline, "last_level_cache", lambda: 2 << 20)
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


def test_files_in_memory_are_as_good_as_free(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    for name, content in {"max": "4096000", "current": "4000000"}.items():
        (group / f"memory.{name}").write_text(f"{content}\n")
    assert roofline.free_memory(tmp_path) == 96_000
    (group / "memory.stat").write_text(
        "anon 1000000\nfile 2000000\ninactive_file 1500000\nactive_file 400000\n"
    )
    assert roofline.free_memory(tmp_path) == 96_000 + 1_900_000
    (group / "memory.max").write_text("max\n")
    assert roofline.free_memory(tmp_path) == 8000 << 10


def test_copies_that_fit_a_cache_are_no_ceiling_of_memory(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "free_memory", lambda: 0)
    found = measure_ceilings(("fp32",), 1, 0.02)
    assert found.bytes_per_s is None
    assert "the cache of 2 MiB" in found.not_measured["bytes_per_s"]
    assert found.macs_per_s["fp32"] > 0
    assert "copies" not in found.how


@pytest.mark.parametrize(("cache_mib", "copied_mib"), [(2, 4), (64, 64)])
def test_a_large_cache_has_more_copied_than_usual(
    small: None, monkeypatch: pytest.MonkeyPatch, cache_mib: int, copied_mib: int
) -> None:
    monkeypatch.setattr(roofline, "MOST_BYTES", 16 << 20)
    monkeypatch.setattr(roofline, "last_level_cache", lambda: cache_mib << 20)
    assert f"copies of {copied_mib} MiB" in measure_ceilings((), 1, 0.02).how


def test_no_more_than_a_share_of_the_free_memory_is_taken(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "free_memory", lambda: 16 << 20)
    monkeypatch.setattr(roofline, "cpu_kernels", lambda precision, threads: [])
    assert "copies of 2 MiB" in measure_ceilings((), 1, 0.02).how
