"""Limits of control groups, on fake hosts and in a real control group."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from control_groups import real_control_groups
from test_doctor import give_host

from labctl.doctor import running
from labctl.experiments.needs import Need, shortage
from labctl.host.cgroup import NO_LIMITS, Limit, Limits, oom_kills, read_limits
from labctl.host.facts import Memory, read_facts, read_memory
from labctl.lab.topology import Topology

MIB, GIB = 2**20, 2**30
V2 = "29 23 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 25 0:{n} {top} /sys/fs/cgroup/{name} rw,nosuid shared:9 - cgroup cgroup rw,{name}"
NONE_V1 = 9223372036854771712


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def in_group(root, path, mount, **files):
    """Put this process into a v2 group of a fake host; `files` are by name, `_` for `.`."""
    put(root, "proc/self/cgroup", f"0::{path}")
    put(root, "proc/self/mountinfo", V2.format(top=mount))
    own = path.removeprefix(mount.rstrip("/")).strip("/")
    for name, text in files.items():
        put(root, f"sys/fs/cgroup/{own}/{name.replace('_', '.', 1)}", text)
    return root


@pytest.fixture
def host(tmp_path):
    give_host(tmp_path, cpus=16)
    return tmp_path


def test_a_host_without_groups_has_no_limits(host):
    assert read_limits(host) == NO_LIMITS
    assert read_facts(host, range(16)).cores == 16


def test_limits_of_v2_are_read_with_their_files(host):
    in_group(
        host,
        "/",
        "/",
        cpu_max="250000 100000",
        memory_max=4 * GIB,
        memory_current=3 * GIB,
        memory_stat=f"anon {GIB}\ninactive_file {GIB}\nactive_file {GIB // 2}",
        pids_max=100,
        pids_current=40,
    )
    limits = read_limits(host)
    assert limits.cpus == Limit(2.5, 2.5, "/sys/fs/cgroup/cpu.max")
    assert limits.memory == Limit(4 * GIB, 2.5 * GIB, "/sys/fs/cgroup/memory.max")
    assert limits.processes == Limit(100, 60, "/sys/fs/cgroup/pids.max")
    facts = read_facts(host, range(16))
    assert (facts.cores, facts.memory_bytes, facts.available_bytes) == (2, 4 * GIB, 5 * GIB // 2)
    assert read_memory(host) == Memory(4 * GIB, 5 * GIB // 2, "/sys/fs/cgroup/memory.max")


def test_max_is_no_limit(host):
    in_group(
        host, "/a", "/", cpu_max="max 100000", memory_max="max", memory_high="max", pids_max="max"
    )
    assert read_limits(host) == NO_LIMITS


@pytest.mark.parametrize("text", ["", "1e5", "-1 100000", "9 0", "1e3 5", "9" * 40])
def test_unreadable_limits_are_none(host, text):
    in_group(host, "/a", "/", cpu_max=text, memory_max=text, pids_max=text)
    found = read_limits(host)
    assert (found.cpus, found.memory) == (None, None)


def test_the_tightest_of_a_group_and_its_parents_counts(host):
    in_group(host, "/user.slice/lab", "/", memory_max="max", cpu_max="400000 100000")
    put(host, "sys/fs/cgroup/user.slice/memory.high", 2 * GIB)
    put(host, "sys/fs/cgroup/user.slice/memory.max", 3 * GIB)
    put(host, "sys/fs/cgroup/user.slice/memory.current", GIB)
    put(host, "sys/fs/cgroup/user.slice/cpu.max", "800000 100000")
    found = read_limits(host)
    assert found.memory == Limit(2 * GIB, GIB, "/sys/fs/cgroup/user.slice/memory.high")
    assert found.cpus.file == "/sys/fs/cgroup/user.slice/lab/cpu.max"


def test_a_group_without_room_beats_a_smaller_one_with_room(host):
    in_group(host, "/a/b", "/", memory_max=2 * GIB, memory_current=0)
    put(host, "sys/fs/cgroup/a/memory.max", 8 * GIB)
    put(host, "sys/fs/cgroup/a/memory.current", 8 * GIB - 5)
    assert read_limits(host).memory.left == 5


@pytest.mark.parametrize(
    ("path", "mount"),
    [("/docker/8f", "/docker/8f"), ("/docker/8f/x", "/docker/8f"), ("/elsewhere", "/docker/8f")],
)
def test_a_container_may_see_its_group_under_the_path_of_its_host(host, path, mount):
    in_group(host, path, mount)
    put(host, "sys/fs/cgroup/pids.max", 64)
    assert read_limits(host).processes.file == "/sys/fs/cgroup/pids.max"


def test_the_groups_of_others_that_are_mounted_too_do_not_count(host):
    put(host, "proc/self/cgroup", "0::/mine")
    other = V2.format(top="/other").replace("/sys/fs/cgroup", "/mnt/other")
    put(host, "proc/self/mountinfo", f"{other}\n{V2.format(top='/')}")
    put(host, "mnt/other/pids.max", 3)
    put(host, "sys/fs/cgroup/mine/pids.max", 64)
    assert read_limits(host).processes.most == 64


def test_a_path_outside_the_mount_stays_in_it(host):
    in_group(host, "/../../etc", "/")
    put(host, "sys/fs/cgroup/pids.max", 64)
    assert read_limits(host).processes.file == "/sys/fs/cgroup/pids.max"


def test_limits_of_v1_are_read(host):
    put(host, "proc/self/cgroup", "9:memory:/job\n8:pids:/job\n4:cpu,cpuacct:/job\n0::/")
    mounts = [V1.format(n=30 + n, top="/", name=name) for n, name in enumerate(("memory", "pids"))]
    mounts += [V1.format(n=40, top="/", name="cpu,cpuacct")]
    put(host, "proc/self/mountinfo", "\n".join([*mounts, V2.format(top="/")]))
    place = "sys/fs/cgroup"
    put(host, f"{place}/memory/memory.limit_in_bytes", NONE_V1)
    put(host, f"{place}/memory/job/memory.limit_in_bytes", GIB)
    put(host, f"{place}/memory/job/memory.usage_in_bytes", 600 * MIB)
    put(host, f"{place}/memory/job/memory.stat", f"total_inactive_file {100 * MIB}\nmapped_file 7")
    put(host, f"{place}/cpu,cpuacct/job/cpu.cfs_quota_us", 150000)
    put(host, f"{place}/cpu,cpuacct/job/cpu.cfs_period_us", 100000)
    put(host, f"{place}/cpu,cpuacct/cpu.cfs_quota_us", -1)
    put(host, f"{place}/pids/job/pids.max", 50)
    put(host, f"{place}/pids/job/pids.current", 20)
    found = read_limits(host)
    assert found.memory == Limit(GIB, 524 * MIB, "/sys/fs/cgroup/memory/job/memory.limit_in_bytes")
    assert found.cpus == Limit(1.5, 1.5, "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us")
    assert found.processes == Limit(50, 30, "/sys/fs/cgroup/pids/job/pids.max")


def test_a_limit_above_the_memory_of_the_host_is_none(host):
    in_group(host, "/a", "/", memory_max=1024 * GIB)
    assert read_limits(host).memory is None


def test_a_cpuset_and_its_nodes_are_named(tmp_path):
    give_host(tmp_path, cpus=16, nodes=2, available_gib=64)
    put(tmp_path, "sys/devices/system/cpu/online", "0-15")
    put(tmp_path, "sys/devices/system/node/has_memory", "0-1")
    in_group(tmp_path, "/a", "/")
    put(tmp_path, "sys/fs/cgroup/a/cpuset.cpus.effective", "8-11")
    put(tmp_path, "sys/fs/cgroup/a/cpuset.mems.effective", "1")
    facts = read_facts(tmp_path, range(8, 12))
    assert facts.limits.cpuset == "/sys/fs/cgroup/a/cpuset.cpus.effective"
    assert [node.number for node in facts.nodes] == [1]
    assert 32 * GIB <= facts.available_bytes < 33 * GIB
    line = running.limits(facts, []).what
    assert "4 CPUs of the host (/sys/fs/cgroup/a/cpuset.cpus.effective)" in line
    assert "1 NUMA node of the host (/sys/fs/cgroup/a/cpuset.mems.effective)" in line


def test_a_cpuset_of_all_cpus_is_no_limit(host):
    put(host, "sys/devices/system/cpu/online", "0-15")
    in_group(host, "/a", "/")
    put(host, "sys/fs/cgroup/a/cpuset.cpus.effective", "0-15")
    assert read_limits(host) == NO_LIMITS


def test_builds_run_as_many_jobs_as_the_limits_allow():
    def jobs(**limits):
        return Limits(**{name: Limit(n, n, "f") for name, n in limits.items()}).jobs(16)

    assert jobs() == 16
    assert jobs(cpus=2.5) == 3
    assert jobs(cpus=0.2) == 1
    assert jobs(memory=GIB) == 4
    assert jobs(memory=0) == 1
    assert jobs(processes=30) == 5
    assert jobs(cpus=64, memory=64 * GIB, processes=10000) == 16


@pytest.fixture
def need():
    topology = Topology(nodes=4, cpus_per_node=1, memory_per_node=256 * MIB)
    return Need("headline", "numa4", 3, topology)


def test_guests_beyond_the_memory_limit_are_rejected_by_its_name(host, need):
    in_group(host, "/a", "/", memory_max=4 * GIB, memory_current=2 * GIB)
    facts = read_facts(host, range(16))
    assert shortage(need, facts, ()) == (
        "needs 3 GiB for its 3 guests, but only 2 GiB are free below the limit of "
        "/sys/fs/cgroup/a/memory.max"
    )
    assert running.memory(facts, [need]).status == "fail"


def test_guests_beyond_the_limit_of_processes_are_rejected_by_its_name(host, need):
    in_group(host, "/a", "/", pids_max=40, pids_current=10)
    facts = read_facts(host, range(16))
    assert shortage(need, facts, ()) == (
        "needs 36 processes and threads for its 3 guests, but only 30 are left of the 40 of "
        "/sys/fs/cgroup/a/pids.max"
    )
    found = running.limits(facts, [need])
    assert (found.status, "--pids-limit" in found.mend) == ("fail", True)


def test_the_doctor_names_each_limit_and_its_file(host):
    in_group(host, "/a", "/", cpu_max="150000 100000", memory_max=GIB, pids_max=500)
    found = running.limits(read_facts(host, range(16)), [])
    assert found.status == "warn"
    assert found.what == (
        "time of 1.5 CPUs (/sys/fs/cgroup/a/cpu.max); "
        "memory: 1 GiB of 1 GiB left (/sys/fs/cgroup/a/memory.max); "
        "processes and threads: 500 of 500 left (/sys/fs/cgroup/a/pids.max); "
        "builds run 2 jobs; throttling disturbs measurements"
    )
    assert "overcommitted" in running.cores(read_facts(host, range(16)), [_four_vcpus()]).what


def _four_vcpus():
    return Need("e", "g", 1, Topology(nodes=4, cpus_per_node=1, memory_per_node=64 * MIB))


def test_the_doctor_without_limits_says_so(host):
    facts = replace(read_facts(host, range(2)), limits=NO_LIMITS)
    found = running.limits(facts, [])
    assert (found.status, found.what) == (
        "ok",
        "no control group limits CPUs, memory or processes",
    )


def test_oom_kills_are_counted_by_group(host):
    in_group(host, "/a", "/", memory_events="low 0\noom 3\noom_kill 2\noom_group_kill 0")
    assert oom_kills(host) == {"/sys/fs/cgroup/a/memory.events": 2}


@pytest.fixture
def real_groups():
    with real_control_groups(memory=512 * MIB, pids=77) as groups:
        yield groups


def test_the_limits_of_a_real_group_are_read(real_groups):
    code = """
import json, sys
sys.stdin.readline()
from labctl.host.cgroup import read_limits
found = read_limits()
print(json.dumps([found.memory.most, found.memory.left, found.memory.file, found.processes.most]))
"""
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        for group in set(real_groups.values()):
            (group / "cgroup.procs").write_text(str(child.pid))
        output, _ = child.communicate("go\n", timeout=60)
    most, left, file, processes = json.loads(output)
    assert most == 512 * MIB
    assert 0 < left < most
    assert Path(file).parent == real_groups["memory"]
    assert processes == 77


def test_a_program_beyond_the_limit_of_processes_is_told_by_that_name(real_groups):
    code = """
import sys
sys.stdin.readline()
from labctl import proc
from labctl.errors import HostError
try:
    proc.run(["true"], timeout_seconds=10)
except HostError as error:
    print(error)
"""
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        (real_groups["pids"] / "pids.max").write_text("1")
        (real_groups["pids"] / "cgroup.procs").write_text(str(child.pid))
        output, _ = child.communicate("go\n", timeout=60)
    assert "cannot be started: Resource temporarily unavailable" in output
    assert "hint: the limit of processes is reached: see `limits` of `labctl doctor`" in output
