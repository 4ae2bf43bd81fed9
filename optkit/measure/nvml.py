"""What the driver tells of the first NVIDIA GPU, through NVML (the package nvidia-ml-py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from optkit.core import discover
from optkit.measure.probes import Read, Unreadable

# Bits of NVML's clocks event reasons (nvml.h) that mean: slower than it could be.
SLOWED = {
    0x04: "its power limit",
    0x08: "a hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "a power brake",
}


class Gpu:
    """The first GPU. `library` is pynvml, started."""

    def __init__(self, library: Any) -> None:
        self._nvml = library
        self._handle = self._ask(library.nvmlDeviceGetHandleByIndex, 0)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise Unreadable(f"NVML: {str(error).lower()}") from None

    def mhz(self) -> float:
        """Clock of its multiprocessors."""
        return float(self._ask(self._nvml.nvmlDeviceGetClockInfo, self._handle, self._nvml.NVML_CLOCK_SM))

    def celsius(self) -> float:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        return float(self._ask(self._nvml.nvmlDeviceGetTemperature, self._handle, sensor))

    def watts(self) -> float:
        return float(self._ask(self._nvml.nvmlDeviceGetPowerUsage, self._handle)) / 1000

    def throttle_reasons(self) -> float:
        """The bits of SLOWED that are set."""
        found = int(self._ask(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle))
        return float(found & sum(SLOWED))

    def joules(self) -> float:
        """Energy since the driver was loaded; Volta and later."""
        return float(self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._handle)) / 1000

    def process_bytes(self, pid: int) -> int:
        """Memory that a process holds on the GPU."""
        for process in self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle):
            if process.pid == pid and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory)
        raise Unreadable("NVML does not list the process: it uses no GPU, or is in a container")

    def probes(self) -> dict[str, Read]:
        """What is sampled while others measure."""
        return {
            "gpu_mhz": self.mhz,
            "gpu_celsius": self.celsius,
            "gpu_watts": self.watts,
            "gpu_throttle_reasons": self.throttle_reasons,
        }


@cache
def first_gpu() -> Gpu | str:
    """The first GPU, or why none can be asked."""
    if not discover.installed("pynvml"):
        return "nvidia-ml-py is not installed: pip install nvidia-ml-py"
    import pynvml

    try:
        pynvml.nvmlInit()
        return Gpu(pynvml)
    except (pynvml.NVMLError, Unreadable) as error:
        return f"no NVIDIA GPU answers: {str(error).lower()}"
