from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from optkit.core.types import Format, Manifest
from optkit.measure import telemetry
from optkit.measure.nvml import Gpu
from optkit.measure.probes import PROBES
from optkit.measure.telemetry import EnergyMeter, Telemetry, gpu_memory, process_memory, warnings
from tests.measure.machine_tree import Machine

NO_GPU = "there is no GPU in this test"


class NVMLError(Exception):
    """As pynvml's."""


class Nvml(SimpleNamespace):
    """A driver with one GPU, as pynvml gives it."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0
    millijoules = 5_000

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"gpu{index}"

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:
        return {("gpu0", 1): 1980}[handle, clock]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 71

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 312_500

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return 0x04 | 0x01  # its power limit; and idle, which slows nothing down

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(pid=7, usedGpuMemory=None),
            SimpleNamespace(pid=8, usedGpuMemory=123),
        ]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def wait_for(found: Telemetry, samples: int) -> None:
    """Until there are as many samples."""
    deadline = time.monotonic() + 20
    while len(found.trace()["rows"]) < samples and time.monotonic() < deadline:
        time.sleep(0.005)


def sampled(machine: Machine, gpu: Gpu | str = NO_GPU) -> dict[str, Any]:
    """A trace of a few samples, while others work."""
    with Telemetry(interval_s=0.01, host=machine.host, gpu=gpu) as found:
        machine.ticks(idle=50, own=10, child=10, others=30, stolen=0)
        wait_for(found, 3)
    return found.trace()


def test_a_trace_has_a_column_for_each_figure(machine: Machine) -> None:
    trace = sampled(machine, Gpu(Nvml()))
    assert trace["columns"] == ["seconds", *PROBES, *telemetry.GPU_COLUMNS]
    assert trace["gaps"] == {}
    first = dict(zip(trace["columns"], trace["rows"][0], strict=True))
    assert (first["runnable"], first["mhz"], first["celsius"]) == (4, 3100, 64.5)
    assert (first["gpu_mhz"], first["gpu_celsius"], first["gpu_watts"]) == (1980, 71, 312.5)
    assert first["gpu_throttle_reasons"] == 0x04
    assert max(row[trace["columns"].index("others_percent")] or 0 for row in trace["rows"]) > 0
    assert len(trace["rows"]) >= 3
    times = [row[0] for row in trace["rows"]]
    assert times == sorted(times)


def test_what_is_not_there_has_a_reason_instead_of_a_column(machine: Machine) -> None:
    machine.remove("sys/class/hwmon/hwmon1/temp1_input")
    machine.remove("sys/class/hwmon/hwmon1/temp2_input")
    machine.write("sys/class/thermal/thermal_zone0/type", "battery")
    trace = sampled(machine)
    assert set(trace["gaps"]) == {"celsius", *telemetry.GPU_COLUMNS}
    assert trace["gaps"]["gpu_watts"] == NO_GPU
    assert not set(trace["gaps"]) & set(trace["columns"])
    Manifest(stage="bench", key="k", format=Format.RESULT, details={"trace": trace}).model_dump_json()


def test_a_sensor_that_fails_later_leaves_holes(machine: Machine) -> None:
    with Telemetry(interval_s=0.01, host=machine.host, gpu=NO_GPU) as found:
        wait_for(found, 1)
        machine.write("sys/class/hwmon/hwmon1/temp1_input", "?")
        wait_for(found, len(found.trace()["rows"]) + 2)  # one may have been under way
    trace = found.trace()
    place = trace["columns"].index("celsius")
    assert (trace["rows"][0][place], trace["rows"][-1][place]) == (64.5, None)


def test_a_short_block_has_one_sample(machine: Machine) -> None:
    with Telemetry(interval_s=60, host=machine.host, gpu=NO_GPU) as found:
        machine.ticks(idle=1, own=0, child=0, others=0, stolen=0)
    assert len(found.trace()["rows"]) == 1


def test_a_long_trace_is_thinned_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MAX_ROWS", 4)
    with Telemetry(interval_s=0.01, host=machine.host, gpu=NO_GPU) as found:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and [row for row in found.trace()["rows"] if row[0] > 0.15] == []:
            time.sleep(0.01)
    trace = found.trace()
    assert 2 <= len(trace["rows"]) <= 4
    assert trace["rows"][0][0] < trace["rows"][-1][0]


def test_sampling_costs_next_to_nothing() -> None:
    """Of one processor; on a machine of two cores 0.7 ms a sample were measured, twice a second."""
    with Telemetry(interval_s=0.05) as found:
        before = time.process_time()
        time.sleep(0.5)
        spent = time.process_time() - before
    assert spent / len(found.trace()["rows"]) < 0.005


def test_it_is_light() -> None:
    code = (
        "import sys, optkit.measure.telemetry as t; t.EnergyMeter().read(); "
        "print({'numpy', 'torch', 'pydantic'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"


def trace_of(**columns: list[float | None]) -> dict[str, Any]:
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return {"columns": list(columns), "rows": rows, "gaps": {}}


@pytest.mark.parametrize(
    ("column", "calm", "troubled", "words"),
    [
        ("mhz", [3000.0, 2900.0] * 10, [3000.0] * 10 + [2000.0] * 10, "fell from 3000 to 2000 MHz"),
        ("gpu_mhz", [1980.0] * 19 + [300.0], [1980.0] * 10 + [1400.0] * 10, "of the GPU fell"),
        ("thermal_throttles", [4.0] * 20, [4.0] * 19 + [6.0], "Heat slowed the processor down 2 times"),
        ("cgroup_throttles", [4.0] * 20, [4.0] * 10 + [9.0] * 10, "quota"),
        ("others_percent", [0.0, 18.0] * 10, [5.0, 25.0] * 10, "15 % of the processors on average, up to 25 %"),
        ("steal_percent", [1.0] * 20, [4.0] * 20, "virtual machines took 4 %"),
        ("gpu_throttle_reasons", [0.0] * 20, [float(0x20)] * 5 + [0.0] * 15, "heat (software) in 25%"),
    ],
)  # fmt: skip
def test_doubts_are_told_in_words(column: str, calm: list[float], troubled: list[float], words: str) -> None:
    assert warnings(trace_of(**{column: calm})) == []
    (found,) = warnings(trace_of(**{column: troubled}))
    assert words in found


def test_a_trace_without_figures_gives_no_warning() -> None:
    assert warnings({"columns": ["seconds"], "rows": [], "gaps": {}}) == []
    assert warnings(trace_of(seconds=[0.5], mhz=[None], gpu_throttle_reasons=[None])) == []


def test_energy_of_the_packages_is_counted_over_the_end_of_the_range(machine: Machine) -> None:
    machine.package(1, microjoules=9_000_000)
    machine.package(2, microjoules=5, name="psys")  # all of the machine: the packages are contained in it
    meter = EnergyMeter(machine.root, NO_GPU)
    assert meter.read() == {"rapl": 0.0}
    machine.package(0, microjoules=3_000_000)
    machine.package(1, microjoules=500_000)
    machine.package(2, microjoules=9_000_000, name="psys")
    assert meter.read() == {"rapl": pytest.approx(2.0 + 1.5)}
    machine.package(0, microjoules=4_000_000)
    assert meter.read() == {"rapl": pytest.approx(4.5)}
    assert meter.unavailable == {"nvml": NO_GPU}


def test_a_counter_that_fails_stays_where_it_was(machine: Machine) -> None:
    meter = EnergyMeter(machine.root, NO_GPU)
    machine.package(0, microjoules=2_000_000)
    assert meter.read() == {"rapl": pytest.approx(1.0)}
    machine.remove("sys/class/powercap/intel-rapl:0/energy_uj")
    assert meter.read() == {"rapl": pytest.approx(1.0)}


def test_an_unreadable_counter_says_what_to_do(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    meter = EnergyMeter(machine.root, NO_GPU)
    assert meter.read() == {}
    assert "sudo chmod" in meter.unavailable["rapl"]


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    meter = EnergyMeter(tmp_path, NO_GPU)
    assert meter.read() == {}
    assert set(meter.unavailable) == {"rapl", "nvml"}


def test_energy_of_the_gpu(tmp_path: Path) -> None:
    driver = Nvml()
    meter = EnergyMeter(tmp_path, Gpu(driver))
    driver.millijoules = 7_250
    assert meter.read() == {"nvml": 2.25}


def test_memory_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "proc/5").mkdir(parents=True)
    (tmp_path / "proc/5/status").write_text("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n")
    assert process_memory(5, tmp_path) == {"rss_bytes": 1 << 20, "peak_rss_bytes": 2 << 20}
    assert process_memory(6, tmp_path) == {"rss_bytes": None, "peak_rss_bytes": None}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is Linux's")
def test_memory_that_is_given_back_stays_in_the_peak() -> None:
    before = process_memory(os.getpid())
    block = bytearray(os.urandom(1) * (64 << 20))
    during = process_memory(os.getpid())
    del block
    after = process_memory(os.getpid())
    assert (during["rss_bytes"] or 0) - (before["rss_bytes"] or 0) > 32 << 20
    assert (after["rss_bytes"] or 0) < (during["rss_bytes"] or 0)
    assert (after["peak_rss_bytes"] or 0) >= (during["rss_bytes"] or 0)


def test_memory_on_the_gpu_or_why_not() -> None:
    gpu = Gpu(Nvml())
    assert gpu_memory(8, gpu) == (123, None)
    assert gpu_memory(7, gpu)[0] is None
    assert "container" in (gpu_memory(9, gpu)[1] or "")
    assert gpu_memory(8, NO_GPU) == (None, NO_GPU)


def test_what_the_driver_refuses_is_a_gap(machine: Machine) -> None:
    driver = Nvml()

    def refuse(*_: object) -> int:
        raise NVMLError("Not Supported")

    driver.nvmlDeviceGetPowerUsage = refuse
    trace = sampled(machine, Gpu(driver))
    assert trace["gaps"] == {"gpu_watts": "NVML: not supported"}
    driver.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert EnergyMeter(machine.root, Gpu(driver)).unavailable == {"nvml": "NVML: not supported"}
