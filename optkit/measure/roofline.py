"""The two ceilings of a machine: how fast it multiplies and how fast it moves memory (Williams et al. 2009).

Both are measured, by the fastest dense kernels at hand and by copies: no data sheet knows the clock that this machine
runs at, nor who else uses its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from optkit.measure.dense import Dense, cpu_kernels, cuda_copy, cuda_kernels
from optkit.measure.latency import Stopwatch

MEMORY_SHARE = 0.4  # of the time that is given
LEAST_CALLS = 3
CACHES, LEAST_CACHES = 4, 2  # how many times the last-level cache the copied arrays are, together
MOST_BYTES = (
    512 << 20
)  # of them, where the cache allows it: touching memory for the first time may take seconds per GiB
USUAL_CACHE, USUAL_MEMORY = 32 << 20, 2 << 30  # bytes, where the system does not say
SHARE_OF_FREE_MEMORY = 0.25


@dataclass(frozen=True)
class Ceilings:
    """Multiply-accumulates per second by precision, bytes per second (read and written), and how they were found.

    What could not be measured has its reason in `not_measured`: a precision, or "bytes_per_s", which is None then.
    """

    macs_per_s: dict[str, float]
    bytes_per_s: float | None
    device: str
    threads: int
    how: str
    not_measured: dict[str, str] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def measure_ceilings(
    precisions: Iterable[str], threads: int, seconds: float = 1.5, device: str = "cpu"
) -> Ceilings:
    """Measure this machine, now, with as many threads; `device` is cpu or cuda.

    The best of several kernels and shapes stands for a precision ("fp32", "int8", "bf16", …).
    """
    precisions = list(dict.fromkeys(precisions))
    each = seconds * (1 - MEMORY_SHARE) / max(1, len(precisions))
    find = cuda_kernels if device == "cuda" else cpu_kernels
    found, hows, missing = {}, [], {}
    for precision in precisions:
        kernels = find(precision, threads)
        if not kernels:
            missing[precision] = f"no kernel that computes in {precision} is at hand"
            continue
        found[precision], name = _fastest(kernels, each)
        hows.append(f"{precision}: {name}")
    how = f"best call of dense kernels ({'; '.join(hows)})"
    bytes_per_s = None
    if device == "cpu" and (why := _too_small(_array_bytes())):
        missing["bytes_per_s"] = why
    else:
        bytes_per_s, copied = _memory(threads, seconds * MEMORY_SHARE, device)
        how += f"; {copied}"
    return Ceilings(found, bytes_per_s, device, threads, how, missing)


def _fastest(kernels: list[Dense], seconds: float) -> tuple[float, str]:
    """MACs per second of the best call, and what it called."""
    return max(
        (kernel.macs / _best_seconds(kernel.call, seconds / len(kernels)), kernel.name) for kernel in kernels
    )


def _best_seconds(call: Callable[[], object], seconds: float) -> float:
    """The quickest of the calls that fit into the time: what disturbs a machine makes it slower, never faster."""
    watch = Stopwatch()
    times: list[float] = []
    call()  # the first one finds cold caches, or untouched memory
    while len(times) < LEAST_CALLS or watch.seconds() < seconds:
        before = watch.seconds()
        call()
        times.append(watch.seconds() - before)
    return min(times)


def _memory(threads: int, seconds: float, device: str) -> tuple[float, str]:
    """Bytes per second of copies, read and written ones counted, and what was copied."""
    if device == "cuda":
        call, moved = cuda_copy()
        return moved / _best_seconds(call, seconds), f"device copy of {moved >> 21} MiB"
    size = _array_bytes() // (2 * threads)
    sources = [np.empty(size, np.uint8) for _ in range(threads)]
    targets = [np.empty(size, np.uint8) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            for _ in pool.map(np.copyto, targets, sources):  # without Python's lock
                pass

        for _ in pool.map(_touch, [*sources, *targets]):
            pass
        best = _best_seconds(copy, seconds)
    text = f"copies of {size * threads >> 20} MiB to as many others, beside a cache of {last_level_cache() >> 20} MiB"
    return 2 * size * threads / best, text


def _array_bytes() -> int:
    """Of all copied arrays together."""
    cache = last_level_cache()
    most = max(MOST_BYTES, LEAST_CACHES * cache)
    return min(CACHES * cache, most, int(SHARE_OF_FREE_MEMORY * free_memory()))


def _too_small(size: int) -> str:
    """Why copies of so many bytes say nothing of the memory; empty where they do."""
    cache = last_level_cache()
    if size >= LEAST_CACHES * cache:
        return ""
    return (
        f"too little memory is free to copy more than the cache of {cache >> 20} MiB holds: "
        f"{LEAST_CACHES * cache / SHARE_OF_FREE_MEMORY / 2**30:.1f} GiB are needed"
    )


def _touch(array: np.ndarray[Any, Any]) -> None:
    array.fill(1)  # pages that were never written are all one page of zeros


def last_level_cache() -> int:
    """Bytes of the largest cache, as Linux tells it."""
    sizes = [USUAL_CACHE]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with suppress(OSError, ValueError):
            sizes.append(int(path.read_text().strip().removesuffix("K")) << 10)
    return max(sizes)


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that may be taken: of the machine, or of what its control group leaves, as Linux tells them."""
    free = USUAL_MEMORY
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10
    group = root / "sys/fs/cgroup"
    with suppress(OSError, ValueError):  # no limit is the word "max"
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, limit - used + _file_cache(group))
    return max(0, free)


def _file_cache(group: Path) -> int:
    """Bytes of files that a control group keeps in memory, which it gives up for anything else."""
    with suppress(OSError, ValueError, KeyError):
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(stat["inactive_file"]) + int(stat["active_file"])
    return 0
