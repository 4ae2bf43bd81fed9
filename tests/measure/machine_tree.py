"""A /proc and /sys of a test's own: a machine of two processors, with every sensor that optkit reads."""

from __future__ import annotations

from pathlib import Path

from optkit.measure.probes import Host

PID, CHILD = 100, 101
FILES = {
    "sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq": "{khz}",
    "sys/devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_count": "3",
    "sys/devices/system/cpu/cpu{cpu}/thermal_throttle/package_throttle_count": "1",
}


class Machine:
    """Files below `root`; `host` sees them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = Host(root, cpus=(0, 1), pid=PID)
        for cpu, khz in enumerate((2_000_000, 3_100_000)):
            for path, content in FILES.items():
                self.write(path.format(cpu=cpu), content.format(khz=khz))
        self.write("sys/class/hwmon/hwmon0/name", "nvme")
        self.write("sys/class/hwmon/hwmon0/temp1_input", "90000")
        self.write("sys/class/hwmon/hwmon1/name", "coretemp")
        self.write("sys/class/hwmon/hwmon1/temp1_input", "61000")
        self.write("sys/class/hwmon/hwmon1/temp2_input", "64500")
        self.write("sys/class/thermal/thermal_zone0/type", "x86_pkg_temp")
        self.write("sys/class/thermal/thermal_zone0/temp", "55000")
        self.write(f"proc/{PID}/cgroup", "0::/a/b")
        self.write("sys/fs/cgroup/cpu.stat", "usage_usec 1")
        self.write("sys/fs/cgroup/a/cpu.stat", "nr_periods 9\nnr_throttled 2")
        self.write("sys/fs/cgroup/a/b/cpu.stat", "nr_periods 9\nnr_throttled 5")
        self.package(0, microjoules=1_000_000)
        self.write("sys/class/powercap/intel-rapl:0:0/energy_uj", "77")  # the cores: contained in the package
        self.ticks(idle=0, own=0, child=0, others=0, stolen=0)

    def write(self, path: str, content: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = target.with_name(f"{target.name}.new")  # nobody reads half a file
        whole.write_text(content + "\n")
        whole.replace(target)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def package(self, number: int, microjoules: int, name: str | None = None) -> None:
        """A zone of the processors' energy counters, which start anew after 10 joules."""
        folder = f"sys/class/powercap/intel-rapl:{number}"
        self.write(f"{folder}/name", name or f"package-{number}")
        self.write(f"{folder}/energy_uj", str(microjoules))
        self.write(f"{folder}/max_energy_range_uj", "9999999")

    def ticks(self, idle: int, own: int, child: int, others: int, stolen: int) -> None:
        """Time since the start, of both processors together; a third one is not ours."""
        busy = own + child + others
        first = f"cpu0 {busy} 0 0 {idle} 0 0 0 0 0 0"
        second = f"cpu1 0 0 0 0 0 0 0 {stolen} 0 0"
        self.write(
            "proc/stat", f"cpu  1 1 1 1 1 1 1 1\n{first}\n{second}\ncpu2 9 9 9 9 9 9 9 9\nprocs_running 4"
        )
        for pid, spent, children in ((PID, own, f"{CHILD}"), (CHILD, child, "")):
            self.write(f"proc/{pid}/stat", f"{pid} (a (b) c) R 1 1 1 0 -1 0 0 0 0 0 {spent} 0 0 0 20 0")
            self.write(f"proc/{pid}/task/{pid}/children", children)
