from __future__ import annotations

from pathlib import Path

import pytest

from optkit.measure.probes import PROBES, Host, Unreadable
from tests.measure.machine_tree import CHILD, PID, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("runnable", 4),
        ("mhz", 3100),
        ("celsius", 64.5),
        ("thermal_throttles", 8),
        ("cgroup_throttles", 7),
    ],
)
def test_figures_of_a_machine_that_tells_all(machine: Machine, name: str, value: float) -> None:
    assert PROBES[name](machine.host)() == value


def test_work_of_others_is_what_this_process_and_its_children_did_not_do(machine: Machine) -> None:
    others, steal = PROBES["others_percent"](machine.host), PROBES["steal_percent"](machine.host)
    machine.ticks(idle=60, own=10, child=70, others=40, stolen=20)
    assert others() == pytest.approx(100 * 40 / 200)
    assert steal() == pytest.approx(100 * 20 / 200)
    machine.ticks(idle=160, own=10, child=170, others=40, stolen=20)  # none since then
    assert others() == 0
    assert steal() == 0


def test_a_child_that_ended_is_counted_by_its_parent(machine: Machine) -> None:
    others = PROBES["others_percent"](machine.host)
    machine.ticks(idle=50, own=50, child=0, others=0, stolen=0)
    machine.remove(f"proc/{CHILD}/stat")
    assert others() == 0


def test_a_counter_that_stands_still_has_no_share(machine: Machine) -> None:
    others = PROBES["others_percent"](machine.host)
    with pytest.raises(Unreadable, match="does not count"):
        others()


def test_the_clock_without_cpufreq(machine: Machine) -> None:
    for cpu in (0, 1):
        machine.remove(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq")
    machine.write("proc/cpuinfo", "flags\t\t: fpu avx2\ncpu MHz\t\t: 1800.0\ncpu MHz\t\t: 2700.5")
    assert PROBES["mhz"](machine.host)() == 2700.5
    machine.write("proc/cpuinfo", "flags\t\t: fpu hypervisor\ncpu MHz\t\t: 2100.000")
    with pytest.raises(Unreadable, match="virtual machine"):
        PROBES["mhz"](machine.host)
    machine.write("proc/cpuinfo", "Features\t: neon")
    with pytest.raises(Unreadable, match="neither"):
        PROBES["mhz"](machine.host)


def test_thermal_zones_where_there_is_no_other_sensor(machine: Machine) -> None:
    machine.write("sys/class/hwmon/hwmon1/name", "iwlwifi")
    assert PROBES["celsius"](machine.host)() == 55
    machine.write("sys/class/thermal/thermal_zone0/type", "acpitz")
    with pytest.raises(Unreadable, match="no sensor"):
        PROBES["celsius"](machine.host)


def test_quota_of_the_first_version_of_control_groups(machine: Machine) -> None:
    machine.write(f"proc/{PID}/cgroup", "4:memory:/x\n1:cpu,cpuacct:/box\n0::/")
    machine.write("sys/fs/cgroup/cpu/box/cpu.stat", "nr_throttled 11")
    assert PROBES["cgroup_throttles"](machine.host)() == 11


@pytest.mark.parametrize("name", PROBES)
def test_an_empty_machine_says_why_it_tells_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unreadable) as why:
        PROBES[name](Host(tmp_path))
    assert len(str(why.value)) > 15


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="/proc is Linux's")
def test_this_machine_tells_how_much_it_has_to_do() -> None:
    assert PROBES["runnable"](Host())() >= 1
