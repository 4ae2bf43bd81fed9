"""The machine while it measures: a trace of load, clock and heat; energy; memory of a process."""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from optkit.measure.nvml import SLOWED, Gpu, first_gpu
from optkit.measure.probes import PROBES, Host, Read, Unreadable

INTERVAL_S = 0.5
MAX_ROWS = 2000  # a longer trace keeps every second sample
GPU_COLUMNS = ("gpu_mhz", "gpu_celsius", "gpu_watts", "gpu_throttle_reasons")
FALLEN = 0.9  # of the clock that was there before
OTHERS_PERCENT = 10.0
STEAL_PERCENT = 2.0
RAPL = "sys/class/powercap"


class Telemetry:
    """Samples the machine in a thread while the `with` block runs; that takes about 1 ms of one processor each time."""

    def __init__(
        self, interval_s: float = INTERVAL_S, host: Host | None = None, gpu: Gpu | str | None = None
    ) -> None:
        """`gpu`: the GPU to ask, or why there is none; default: the first one."""
        self._interval_s, self._host = interval_s, host or Host()
        self._gpu = first_gpu() if gpu is None else gpu
        self._probes: dict[str, Read] = {}
        self._gaps: dict[str, str] = {}
        self._rows: list[list[float | None]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="telemetry", daemon=True)
        self._started = 0.0

    def __enter__(self) -> Telemetry:
        self._open()
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def trace(self) -> dict[str, Any]:
        """`columns` (the first: seconds since the start), `rows`, and `gaps`: why a column is not there.

        May be asked for while the block runs.
        """
        rows, gaps = list(self._rows), dict(self._gaps)  # the thread goes on
        names = ["seconds", *self._probes]
        kept = [
            place for place, name in enumerate(names)
            if not place or any(row[place] is not None for row in rows)
        ]  # fmt: skip
        shown = {names[place] for place in kept}
        return {
            "columns": [names[place] for place in kept],
            "rows": [[row[place] for place in kept] for row in rows],
            "gaps": {name: why for name, why in gaps.items() if name not in shown},
        }

    def _open(self) -> None:
        for name, make in PROBES.items():
            try:
                self._probes[name] = make(self._host)
            except Unreadable as why:
                self._gaps[name] = str(why)
        if isinstance(self._gpu, str):
            self._gaps |= dict.fromkeys(GPU_COLUMNS, self._gpu)
        else:
            self._probes |= self._gpu.probes()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._sample()
        if not self._rows:
            self._sample()

    def _sample(self) -> None:
        row: list[float | None] = [round(time.monotonic() - self._started, 2)]
        for name, read in self._probes.items():
            try:
                row.append(round(read(), 2))
            except Unreadable as why:
                row.append(None)
                self._gaps[name] = str(why)
        self._rows.append(row)
        if len(self._rows) > MAX_ROWS:
            self._rows = self._rows[::2]
            self._interval_s *= 2


def warnings(trace: dict[str, Any]) -> list[str]:
    """What in a trace makes measured times doubtful, in words."""
    columns = {
        name: [row[place] for row in trace["rows"] if row[place] is not None]
        for place, name in enumerate(trace["columns"])
    }
    found = [_fallen(columns, "mhz", "processor"), _fallen(columns, "gpu_mhz", "GPU")]
    if count := _increase(columns, "thermal_throttles"):
        found.append(f"Heat slowed the processor down {count} times while it was measured: cool it, or wait.")
    if count := _increase(columns, "cgroup_throttles"):
        found.append(
            f"The CPU quota of its control group stopped this process {count} times while it measured: "
            "give the container whole processors, and use as many threads."
        )
    found.append(_shares(columns, "others_percent", OTHERS_PERCENT, "Other work took"))
    found.append(_shares(columns, "steal_percent", STEAL_PERCENT, "Other virtual machines took"))
    return [*filter(None, found), *_slowed(columns.get("gpu_throttle_reasons", []))]


def _fallen(columns: dict[str, list[float]], name: str, what: str) -> str | None:
    """Of the samples the lowest tenth is left out, as is the highest: a moment's rest is no fall."""
    values = columns.get(name, [])
    if len(values) < 2:
        return None
    low, high = (statistics.quantiles(values, n=10, method="inclusive")[place] for place in (0, 8))
    if low >= FALLEN * high:
        return None
    return f"The clock of the {what} fell from {high:.0f} to {low:.0f} MHz: times depend on when they were taken."


def _increase(columns: dict[str, list[float]], name: str) -> int:
    values = columns.get(name) or [0.0]
    return round(values[-1] - values[0])


def _shares(columns: dict[str, list[float]], name: str, limit: float, who: str) -> str | None:
    values = columns.get(name, [])
    mean = statistics.fmean(values) if values else 0.0
    if mean <= limit:
        return None
    share = f"{mean:.0f} % of the processors on average, up to {max(values):.0f} %"
    return f"{who} {share}: times are longer than on a quiet machine."


def _slowed(masks: list[float]) -> list[str]:
    shares = {
        reason: sum(bool(int(mask) & bit) for mask in masks) / len(masks)
        for bit, reason in SLOWED.items()
        if masks
    }
    return [
        f"The GPU was slowed down by {reason} in {share:.0%} of the samples: lock its clocks lower, or cool it."
        for reason, share in shares.items()
        if share
    ]


class EnergyMeter:
    """Joules since it was made, by each counter that can be read here; `unavailable` says why the others cannot.

    `rapl`: the processors' packages, with all that they did, without the memory. `nvml`: the first GPU.
    """

    def __init__(self, root: Path = Path("/"), gpu: Gpu | str | None = None) -> None:
        self.unavailable: dict[str, str] = {}
        self._host, self._gpu = Host(root), first_gpu() if gpu is None else gpu
        self._packages: dict[str, float] = {}  # counter range in microjoules
        self._last: dict[str, float] = {}
        self._joules: dict[str, float] = {}
        try:
            self._packages = dict(_packages(self._host))
            self._last = {package: self._microjoules(package) for package in self._packages}
            self._joules["rapl"] = 0.0
        except Unreadable as why:
            self.unavailable["rapl"] = str(why)
        try:
            if isinstance(self._gpu, str):
                raise Unreadable(self._gpu)
            self._last["nvml"] = self._gpu.joules()
            self._joules["nvml"] = 0.0
        except Unreadable as why:
            self.unavailable["nvml"] = str(why)

    def read(self) -> dict[str, float]:
        """Joules of each source; one that fails now stays where it was."""
        for source in self._joules:
            try:
                self._joules[source] += self._gpu_joules() if source == "nvml" else self._package_joules()
            except Unreadable:
                continue
        return dict(self._joules)

    def _microjoules(self, package: str) -> float:
        return self._host.number(f"{RAPL}/{package}/energy_uj")

    def _package_joules(self) -> float:
        now = {package: self._microjoules(package) for package in self._packages}
        # The counter starts anew at the end of its range.
        spent = sum((now[name] - self._last[name]) % (span + 1) for name, span in self._packages.items())
        self._last |= now
        return spent / 1e6

    def _gpu_joules(self) -> float:
        if isinstance(self._gpu, str):
            raise Unreadable(self._gpu)
        before, self._last["nvml"] = self._last["nvml"], self._gpu.joules()
        return self._last["nvml"] - before


def _packages(host: Host) -> list[tuple[str, float]]:
    """The zones of whole packages with the ranges of their counters; those below them are contained in them."""
    names = sorted(path.name for path in (host.root / RAPL).glob("intel-rapl:*") if path.name.count(":") == 1)
    names = [name for name in names if host.text(f"{RAPL}/{name}/name").startswith("package")]
    if not names:
        raise Unreadable(
            "there is no /sys/class/powercap/intel-rapl: a virtual machine, or another processor"
        )
    readable = [os.access(host.root / RAPL / name / "energy_uj", os.R_OK) for name in names]
    if not all(readable):
        raise Unreadable("only root may read it: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj")
    return [(name, host.number(f"{RAPL}/{name}/max_energy_range_uj")) for name in names]


def process_memory(pid: int, root: Path = Path("/")) -> dict[str, int | None]:
    """What a process holds in memory and the most that it held, in bytes; None where it cannot be told."""
    try:
        lines = Host(root).text(f"proc/{pid}/status").splitlines()
    except Unreadable:
        lines = []
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    found = {"rss_bytes": fields.get("VmRSS"), "peak_rss_bytes": fields.get("VmHWM")}
    return {name: int(words[0]) * 1024 if words else None for name, words in found.items()}


def gpu_memory(pid: int, gpu: Gpu | str | None = None) -> tuple[int | None, str | None]:
    """Bytes that a process holds on the GPU, or None and why that cannot be told."""
    found = first_gpu() if gpu is None else gpu
    if isinstance(found, str):
        return None, found
    try:
        return found.process_bytes(pid), None
    except Unreadable as why:
        return None, str(why)
