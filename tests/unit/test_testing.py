"""The parts of the pytest plugin, without pytest and without guests."""

import os
import signal
import time

import pytest

from labctl.errors import HostError, UserError
from labctl.lab.load import load
from labctl.testing.bench import slug
from labctl.testing.cases import Markers, cases
from labctl.testing.failure import splats
from labctl.testing.leases import Leases, Quiet, Room
from labctl.transports.console import Complaint, scan
from labctl.units import GIB

LAB = """\
guests:
  numa4: {nodes: 4, memory_per_node: 512MiB}
  numa2: {nodes: 2, memory_per_node: 256MiB}
kernels:
  stock: {source: image:bzImage}
  mine: {source: image:bzImage}
tunables:
  max_active: {file: /sys/kernel/debug/x/max_active, kernels: [mine]}
  isolcpus: {parameter: isolcpus}
"""
LIMIT = Room(8 * GIB, 16)


def forked(action):
    """Run a function in a child process; return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return pid


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "bzImage").touch()
    (tmp_path / "lab.yaml").write_text(LAB)
    return load(tmp_path / "lab.yaml")


def ids(lab, **asked):
    return [case.id for case in cases(lab, Markers(**asked))]


def test_without_markers_a_test_runs_on_every_kernel_of_the_lab(lab):
    assert ids(lab) == ["stock", "mine"]
    assert {case.topology.nodes for case in cases(lab, Markers())} == {4}


def test_lists_make_a_case_each_where_the_kernel_has_the_tunable(lab):
    found = ids(lab, tunables={"max_active": [1, "4Ki"]}, topology={"nodes": [1, 2]})
    assert found == [
        *("stock-nodes=1", "stock-nodes=2"),
        *("mine-nodes=1-max_active=1", "mine-nodes=1-max_active=4Ki"),
        *("mine-nodes=2-max_active=1", "mine-nodes=2-max_active=4Ki"),
    ]


def test_a_case_knows_files_from_parameters(lab):
    asked = Markers(kernels=["mine"], tunables={"max_active": "4Ki", "isolcpus": "2-3"})
    (case,) = cases(lab, asked)
    assert case.id == "mine-max_active=4Ki-isolcpus=2-3"
    assert case.files(lab) == {"max_active": 4096}
    assert case.command_line(lab) == "isolcpus=2-3"


def test_a_topology_is_a_guest_of_the_lab_with_changes(lab):
    asked = Markers(kernels=["mine"], guest="numa2", topology={"distances": 31, "cpus_per_node": 2})
    (case,) = cases(lab, asked)
    assert (case.topology.nodes, case.topology.cpus_per_node) == (2, 2)
    assert case.topology.memory_per_node == 256 << 20
    assert case.topology.distances.distance(0, 1) == 31
    matrix = [[10, 40], [20, 10]]
    (case,) = cases(lab, Markers(kernels=["mine"], guest="numa2", topology={"distances": matrix}))
    assert case.topology.distances.distance(0, 1) == 40


def test_nodes_may_be_listed(lab):
    nodes = [{"cpus": 1, "memory": "64MiB"}, {"cpus": 0, "memory": "128MiB"}]
    (case,) = cases(lab, Markers(kernels=["mine"], topology={"nodes": nodes}))
    assert (case.id, case.topology.vcpus, case.topology.memory_bytes) == ("mine", 1, 192 << 20)
    shapes = cases(lab, Markers(kernels=["mine"], topology={"nodes": [nodes, 2]}))
    assert [case.topology.node_count for case in shapes] == [2, 2]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"topology": {"qemu": ["-m", "4G"]}}, "-m conflicts with `nodes:`"),
        ({"topology": {"nodes": [{"cpus": 1}]}}, "nodes.0.memory: Field required"),
        ({"topology": {"nodes": [{"cpus": 1, "memory": 0}]}}, "both vCPUs and memory"),
        ({"kernels": ["stok"]}, "did you mean stock"),
        ({"guest": "numa3"}, "no guest 'numa3'"),
        ({"tunables": {"max_activ": 1}}, "did you mean max_active"),
        ({"tunables": {"max_active": None}}, "expected a number or text"),
        ({"tunables": {"max_active": "4KB"}}, "did you mean 4KiB"),
        ({"topology": {"node": 4}}, "invalid topology: node"),
        ({"topology": {"nodes": 0}}, "invalid topology: nodes"),
        ({"topology": {"memory_per_node": "512MB"}}, "memory_per_node"),
        ({"topology": {"distances": [[10]]}}, "4 rows of 4"),
        ({"topology": {"distances": 10}}, "expected at least 11, got 10"),
    ],
)
def test_an_error_lists_the_known_names(lab, asked, message):
    with pytest.raises(UserError) as caught:
        cases(lab, Markers(**asked))
    assert message in str(caught.value)


def leases(folder, available=100 * GIB):
    folder.mkdir(exist_ok=True)
    return Leases(folder, LIMIT, lambda: available)


def test_leases_never_exceed_the_limit(tmp_path):
    ours, theirs = leases(tmp_path), leases(tmp_path)
    first = ours.take(Room(5 * GIB, 8), deadline_seconds=0)
    assert theirs.held() == Room(5 * GIB, 8)
    assert theirs.take_now(Room(4 * GIB, 1)) is None
    assert theirs.take_now(Room(1 * GIB, 9)) is None
    second = theirs.take_now(Room(3 * GIB, 8))
    assert second is not None
    first.close()
    assert ours.held() == Room(3 * GIB, 8)
    with pytest.raises(HostError, match="waiting for"):
        ours.take(Room(6 * GIB, 1), deadline_seconds=0.3)
    second.close()
    ours.take(Room(6 * GIB, 1), deadline_seconds=0).close()


def test_an_impossible_request_fails_at_once(tmp_path):
    with pytest.raises(HostError, match="the limit"):
        leases(tmp_path).take(Room(9 * GIB, 1), deadline_seconds=100)


def test_a_host_without_free_memory_gives_no_lease(tmp_path):
    assert leases(tmp_path, available=GIB).take_now(Room(2 * GIB, 1)) is None


def test_the_lease_of_a_killed_process_is_released(tmp_path):
    ours = leases(tmp_path)
    reader, writer = os.pipe()

    def hold():
        ours.take(Room(6 * GIB, 4), deadline_seconds=5)
        os.write(writer, b"held")
        while True:
            time.sleep(1)

    holder = forked(hold)
    try:
        assert os.read(reader, 4) == b"held"
        assert ours.take_now(Room(6 * GIB, 1)) is None
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        os.close(reader)
        os.close(writer)
    assert ours.held() == Room()
    ours.take(Room(6 * GIB, 1), deadline_seconds=0).close()


def test_guests_are_idle_while_a_process_measures(tmp_path):
    quiet = Quiet(tmp_path)
    begun, seen = tmp_path / "begun", tmp_path / "seen"

    def work():
        begun.touch()
        with quiet.working():
            seen.touch()

    with quiet.working():  # beside others
        os.waitpid(forked(work), 0)
    assert seen.exists()
    seen.unlink()
    begun.unlink()
    with quiet.measuring():
        worker = forked(work)
        deadline = time.monotonic() + 100
        while not begun.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        assert not seen.exists()
    os.waitpid(worker, 0)
    assert seen.exists()


CONSOLE = """\
[    1.0] labctl: ready
[    2.0] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    2.0] #PF: supervisor read access in kernel mode
[    2.0] Oops: 0000 [#1] SMP
[    2.0] Call Trace:
[    2.0]  <TASK>
[    2.0] ---[ end trace 0000000000000000 ]---
[    2.1] Kernel panic - not syncing: Fatal exception
[    3.0] something else
[    4.0] BUG: Bad page state in process x  pfn:1
[    4.1] a
[    4.2] b
[    4.3] c
[    4.4] d""".splitlines()


def test_a_splat_is_reported_once_with_its_trace():
    found = [(scan(line), n, line) for n, line in enumerate(CONSOLE, 1)]
    complaints = [Complaint(kind, n, line) for kind, n, line in found if kind]
    assert len(complaints) == 4
    assert splats(CONSOLE, []) == []
    ranges = splats(CONSOLE, complaints)
    assert ranges[0] == range(1, 7)  # with the Oops, to the end of its trace
    assert ranges[1].start == 7
    assert CONSOLE[ranges[-1].start].endswith("pfn:1")
    assert ranges[-1].stop < len(CONSOLE)


@pytest.mark.parametrize("heading", ["Call Trace:", "Call trace:"])  # x86, arm64
def test_a_trace_is_reported_completely(heading):
    lines = ["[    9.0] WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x0/0x1", f"[    9.0] {heading}"]
    lines += [f"[    9.0]  f{n}+0x0/0x1" for n in range(20)]
    assert splats(lines, [Complaint("warning", 1, lines[0])]) == [range(22)]


def test_guest_names_are_valid_folder_names():
    assert slug("test_x[stock-thp=never]") == "test_x-stock-thp.never"
    long = [slug(f"test_{'x' * 200}[{name}]") for name in ("a", "b")]
    assert len(set(long)) == 2
    assert all(len(name) < 100 for name in long)
    assert os.sep not in slug("a/b")
