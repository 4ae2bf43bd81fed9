"""What Linux tells of the processor, one figure each: load, clock, heat, throttling.

A probe is made by a function `(host) -> Read` that raises Unreadable, with the reason, where this machine does not
tell it. `Read` gives the present figure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Read = Callable[[], float]
IDLE_FIELDS = (3, 4)  # of a line of /proc/stat: idle, waiting for a disk
STEAL_FIELD = 7
FIELDS = 8  # those after it are contained in the first ones
SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
ZONES = ("cpu", "pkg", "soc")
MAX_FILES = 16  # of a kind are read for a figure: with hundreds of processors reading would be work by itself


class Unreadable(Exception):
    """Why a figure cannot be read here."""


def _allowed() -> tuple[int, ...]:
    found = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return tuple(sorted(found))


@dataclass(frozen=True)
class Host:
    """Where its files are, the processors that this process may use, and the process."""

    root: Path = Path("/")
    cpus: tuple[int, ...] = field(default_factory=_allowed)
    pid: int = field(default_factory=os.getpid)

    def text(self, path: str) -> str:
        """Content of a file below the root; Unreadable when it cannot be read."""
        try:
            return (self.root / path).read_text()
        except OSError as error:
            raise Unreadable(f"/{path}: {(error.strerror or 'not readable').lower()}") from None

    def number(self, path: str) -> float:
        """A file that holds one number."""
        content = self.text(path).strip()
        try:
            return float(content)
        except ValueError:
            raise Unreadable(f"/{path} holds no number: {content[:40]!r}") from None

    def cpu_files(self, name: str) -> list[str]:
        """Paths of a file that each processor of this process has; empty where they do not have it."""
        paths = [f"sys/devices/system/cpu/cpu{cpu}/{name}" for cpu in self.cpus[:MAX_FILES]]
        return [path for path in paths if (self.root / path).is_file()]


def runnable(host: Host) -> Read:
    """Threads of the machine that run or wait for a processor."""

    def read() -> float:
        return _field(host.text("proc/stat"), "procs_running", "/proc/stat")

    read()
    return read


def others_percent(host: Host) -> Read:
    """How much of the processors other work took since the last reading: not this process and its children."""

    def times() -> tuple[float, float, float]:
        total, idle, steal = _ticks(host)
        return total, total - idle - steal, sum(_own_ticks(host))

    last = times()

    def read() -> float:
        nonlocal last
        (total, busy, own), (total_before, busy_before, own_before) = times(), last
        others = max(0.0, (busy - busy_before) - (own - own_before))
        share = _percent(others, total - total_before)
        last = total, busy, own
        return share

    return read


def steal_percent(host: Host) -> Read:
    """How much of the processors the host of a virtual machine gave to others since the last reading."""
    last = _ticks(host)

    def read() -> float:
        nonlocal last
        now = _ticks(host)
        share = _percent(now[2] - last[2], now[0] - last[0])
        last = now
        return share

    return read


def mhz(host: Host) -> Read:
    """Clock of the fastest processor: idle ones may rest."""
    if paths := host.cpu_files("cpufreq/scaling_cur_freq"):
        return _highest(host, paths, 1 / 1000)

    def read() -> float:
        lines = host.text("proc/cpuinfo").splitlines()
        found = [line.partition(":")[2] for line in lines if line.startswith("cpu MHz")]
        if not found:
            raise Unreadable("neither cpufreq nor /proc/cpuinfo tells it")
        return max(float(value) for value in found)

    if any("hypervisor" in line.split() for line in host.text("proc/cpuinfo").splitlines()):
        raise Unreadable("a virtual machine is told the nominal clock alone")
    read()
    return read


def celsius(host: Host) -> Read:
    """The hottest sensor of the processor."""
    return _highest(host, list(_sensors(host))[:MAX_FILES], 1 / 1000)


def thermal_throttles(host: Host) -> Read:
    """How often heat has slowed the processor down since the machine was started."""
    names = ("core_throttle_count", "package_throttle_count")
    paths = [path for name in names for path in host.cpu_files(f"thermal_throttle/{name}")]
    if not paths:
        raise Unreadable("the processor's driver has no /sys/devices/system/cpu/cpu*/thermal_throttle")
    return lambda: sum(host.number(path) for path in paths)


def cgroup_throttles(host: Host) -> Read:
    """How often this process was stopped because its group had used up its CPU quota."""
    paths = [path for path in _cpu_stats(host) if "nr_throttled" in _text_or_nothing(host, path)]
    if not paths:
        raise Unreadable("no control group with a cpu.stat is visible")
    return lambda: sum(_field(host.text(path), "nr_throttled", f"/{path}") for path in paths)


PROBES: dict[str, Callable[[Host], Read]] = {
    "runnable": runnable,
    "others_percent": others_percent,
    "steal_percent": steal_percent,
    "mhz": mhz,
    "celsius": celsius,
    "thermal_throttles": thermal_throttles,
    "cgroup_throttles": cgroup_throttles,
}


def _percent(part: float, whole: float) -> float:
    if whole <= 0:
        raise Unreadable("/proc/stat does not count")
    return 100 * part / whole


def _field(content: str, name: str, path: str) -> float:
    """The number behind `name` in a file of `name number` lines."""
    for line in content.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name:
            return float(words[1])
    raise Unreadable(f"{path} has no {name}")


def _ticks(host: Host) -> tuple[float, float, float]:
    """(all, idle, stolen) ticks of this process' processors since the machine was started."""
    wanted = {f"cpu{cpu}" for cpu in host.cpus}
    rows = [line.split() for line in host.text("proc/stat").splitlines()]
    counts = [
        [float(word) for word in words[1 : FIELDS + 1]] for words in rows if words[:1] and words[0] in wanted
    ]
    if not counts or min(map(len, counts)) < FIELDS:
        raise Unreadable("/proc/stat does not count the time of each processor")
    sums = [sum(column) for column in zip(*counts, strict=True)]
    return sum(sums), sum(sums[field] for field in IDLE_FIELDS), sums[STEAL_FIELD]


def _own_ticks(host: Host) -> Iterator[float]:
    """Ticks of this process and of all its descendants, the ended ones included."""
    waiting = [str(host.pid)]
    while waiting:
        pid = waiting.pop()
        try:
            stat = host.text(f"proc/{pid}/stat")
            tasks = sorted((host.root / "proc" / pid / "task").iterdir())
            children = [host.text(f"proc/{pid}/task/{task.name}/children") for task in tasks]
        except (Unreadable, OSError):
            if pid == str(host.pid):
                raise Unreadable("the kernel does not list the children of a process") from None
            continue  # it has just ended: its parent counts it
        # Behind the name, which may contain blanks: utime, stime, cutime, cstime are fields 14 to 17 of proc(5).
        yield sum(float(word) for word in stat.rpartition(")")[2].split()[11:15])
        waiting += " ".join(children).split()


def _highest(host: Host, paths: list[str], unit: float) -> Read:
    if not paths:
        raise Unreadable("no sensor of the processor in /sys/class/hwmon or /sys/class/thermal")

    def read() -> float:
        return max(host.number(path) for path in paths) * unit

    read()
    return read


def _sensors(host: Host) -> Iterator[str]:
    """Files with the processor's temperature in thousandths of a degree: hwmon's, else the thermal zones."""
    found = False
    for folder in sorted((host.root / "sys/class/hwmon").glob("hwmon*")):
        if _text_or_nothing(host, f"sys/class/hwmon/{folder.name}/name").strip() in SENSORS:
            for file in sorted(folder.glob("temp*_input")):
                found = True
                yield f"sys/class/hwmon/{folder.name}/{file.name}"
    for folder in [] if found else sorted((host.root / "sys/class/thermal").glob("thermal_zone*")):
        kind = _text_or_nothing(host, f"sys/class/thermal/{folder.name}/type").lower()
        if any(word in kind for word in ZONES):
            yield f"sys/class/thermal/{folder.name}/temp"


def _cpu_stats(host: Host) -> Iterator[str]:
    """cpu.stat of the group of this process and of those around it, for both versions of control groups."""
    for line in host.text(f"proc/{host.pid}/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        mount = Path("sys/fs/cgroup") / ("" if number == "0" else "cpu")
        group = Path(path.lstrip("/"))
        for parent in (group, *group.parents):
            yield (mount / parent / "cpu.stat").as_posix()


def _text_or_nothing(host: Host, path: str) -> str:
    try:
        return host.text(path)
    except Unreadable:
        return ""
