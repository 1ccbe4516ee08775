"""Unusual topologies."""

import json

import pytest
from conftest import KCONFIG, link_state

from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.lab.load import load

NODE = "/sys/devices/system/node"
BOOT_SECONDS = 180
MATRIX = [[10, 17, 40], [29, 10, 31], [40, 12, 10]]


@pytest.mark.kernels("stock")
@pytest.mark.tunables(numa_balancing="enable")
@pytest.mark.topology(nodes=3, cpus_per_node=2, memory_per_node="256MiB", distances=MATRIX)
def test_distances_may_differ_both_ways_and_nodes_have_several_cpus(guest):
    assert guest.read(f"{NODE}/online") == "0-2\n"
    rows = [guest.read(f"{NODE}/node{n}/distance").split() for n in range(3)]
    assert [[int(d) for d in row] for row in rows] == MATRIX
    lists = [guest.read(f"{NODE}/node{n}/cpulist").strip() for n in range(3)]
    assert lists == ["0-1", "2-3", "4-5"]
    assert guest.read("/proc/sys/kernel/numa_balancing") == "1\n"  # off without the parameter


def cpu_lists(guest, nodes):
    return [guest.read(f"{NODE}/node{n}/cpulist").strip() for n in range(nodes)]


# Each guest is also compared with its topology when it boots.


@pytest.mark.kernels("stock")
@pytest.mark.topology(
    nodes=[
        {"cpus": 2, "memory": "128MiB"},
        {"cpus": 1, "memory": "64MiB"},
        {"cpus": 0, "memory": "64MiB"},
        {"cpus": 0, "memory": "192MiB"},
    ],
    distances=31,
)
def test_nodes_may_have_memory_only(guest):
    assert guest.read(f"{NODE}/has_cpu") == "0-1\n"
    assert guest.read(f"{NODE}/has_memory") == "0-3\n"
    assert cpu_lists(guest, 4) == ["0-1", "2", "", ""]
    interleaved = "freebench --size 16MiB --threads 2 --placement interleave"
    pages = json.loads(guest.output(interleaved))["pages_per_node"]
    assert [count // 1024 for count in pages] == [1, 1, 1, 1]


@pytest.mark.kernels("stock")
@pytest.mark.topology(
    nodes=[
        {"cpus": 1, "memory": 0},
        {"cpus": 2, "memory": "128MiB"},
        {"cpus": 1, "memory": 0},
        {"cpus": 0, "memory": "64MiB"},
    ]
)
def test_nodes_may_lack_memory(guest):
    assert guest.read(f"{NODE}/has_cpu") == "0-2\n"
    assert guest.read(f"{NODE}/has_memory") == "1,3\n"
    assert cpu_lists(guest, 4) == ["0", "1-2", "3", ""]
    freebench = "freebench --size 8MiB --threads 4 --placement"
    pages = json.loads(guest.output(f"{freebench} interleave"))["pages_per_node"]
    assert [count // 1024 for count in pages] == [0, 1, 0, 1]
    pages = json.loads(guest.output(f"{freebench} local"))["pages_per_node"]
    assert sum(pages) // 1024 == 2
    assert pages[1] >= 1024  # of the two threads there


@pytest.mark.kernels("stock")
@pytest.mark.topology(
    nodes=[
        {"cpus": 1, "memory": "64MiB"},
        {"cpus": 1, "memory": "128MiB"},
        {"cpus": 1, "memory": "256MiB"},
    ]
)
def test_nodes_may_have_different_memory(guest):
    sizes = [guest.read(f"{NODE}/node{n}/meminfo").split()[3] for n in range(3)]
    assert int(sizes[0]) < int(sizes[1]) < int(sizes[2])


@pytest.mark.kernels("stock")
@pytest.mark.topology(
    nodes=2,
    cpus_per_node=4,
    memory_per_node="96MiB",
    sockets=2,
    cores=2,
    threads=2,
    qemu=["-device", "virtio-rng-pci"],
)
def test_cores_may_have_threads(guest):
    assert "0x1005" in guest.output("cat /sys/bus/pci/devices/*/device").split()  # `qemu:`
    cpu = "/sys/devices/system/cpu/cpu{}/topology/{}".format
    assert guest.read(cpu(1, "thread_siblings_list")) == "0-1\n"
    assert guest.read(cpu(6, "thread_siblings_list")) == "6-7\n"
    assert guest.read(cpu(2, "core_siblings_list")) == "0-3\n"
    assert guest.read(cpu(7, "physical_package_id")) == "1\n"
    assert cpu_lists(guest, 2) == ["0-3", "4-7"]


# What follows needs more of a kernel than the lab's own, so that it has a lab of its own.
SHAPES = """\
version: 1
defaults: {{guest: tiers}}
guests:
  tiers:
    nodes:
      - {{cpus: 1, memory: 192MiB}}
      - {{cpus: 1, memory: 128MiB}}
      - {{cpus: 0, memory: 128MiB}}
      - {{cpus: 0, memory: 128MiB}}
    latency: [[80ns, 140ns, 250ns, 400ns], [140ns, 80ns, 250ns, 300ns]]
    bandwidth: [40GiB/s, 40GiB/s, 8GiB/s, 1536MiB/s]
  hotplug:
    nodes:
      - {{cpus: 1, memory: 256MiB, hotplug: {{memory: 128MiB, state: offline}}}}
      - {{cpus: 0, memory: 128MiB, hotplug: 256MiB}}
      - {{cpus: 0, memory: 0, hotplug: {{memory: 256MiB, state: online_movable}}}}
    distances: {{matrix: [[10, 20, 40], [20, 10, 40], [40, 40, 10]]}}
  zram: {{nodes: 1, memory_per_node: 192MiB, swap: {{zram: 64MiB}}}}
  disk: {{nodes: 1, memory_per_node: 192MiB, swap: {{disk: 96MiB}}, disks: [64MiB, 1GiB]}}
kernels:
  shaped: {{source: debian:linux-source-6.1, kconfig: {kconfig}}}
"""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "lab.yaml").write_text(SHAPES.format(kconfig=KCONFIG))
    link_state(folder)
    return prepare(load(folder / "lab.yaml"), ["shaped"], lambda _: None)


@pytest.fixture
def shaped(shapes, tmp_path, request):
    """The booted guest of a test's marker."""
    topology = shapes.lab.guests[request.param]
    spec = shapes.spec("shaped", name=request.param, folder=tmp_path / "guest", topology=topology)
    with Guest(spec) as guest:
        guest.wait_ready(BOOT_SECONDS)
        yield guest


def output(guest, line):
    done = guest.run(line, timeout_seconds=60)
    assert done.status == 0, done.stderr
    return done.text


@pytest.mark.parametrize("shaped", ["tiers"], indirect=True)
def test_memory_may_have_latency_and_bandwidth(shaped):
    access = f"{NODE}/node{{}}/access0/initiators".format
    for node, latency, bandwidth, near in [
        (0, 80, 40960, ["node0"]),
        (1, 80, 40960, ["node1"]),
        (2, 250, 8192, ["node0", "node1"]),
        (3, 300, 1536, ["node1"]),
    ]:
        for kind in ("read", "write"):
            assert int(shaped.read(f"{access(node)}/{kind}_latency")) == latency
            assert int(shaped.read(f"{access(node)}/{kind}_bandwidth")) == bandwidth
        names = output(shaped, f"ls {access(node)}").split()
        assert [name for name in names if name.startswith("node")] == near


@pytest.mark.parametrize("shaped", ["hotplug"], indirect=True)
def test_memory_may_be_hotplugged(shaped):
    assert shaped.read(f"{NODE}/has_memory") == "0-2\n"
    states = [output(shaped, f"cat {NODE}/node{n}/memory*/state").split() for n in range(3)]
    assert states == [["online", "online", "offline"], ["online"] * 3, ["online"] * 2]
    totals = [int(shaped.read(f"{NODE}/node{n}/meminfo").split()[3]) for n in range(3)]
    assert totals[0] < 256 * 1024
    assert 256 * 1024 < totals[1] <= 384 * 1024
    assert totals[2] == 256 * 1024
    assert shaped.read(f"{NODE}/node0/distance").split() == ["10", "20", "40"]
    # The node of hotplugged memory alone is used like any other.
    freebench = "freebench --size 32MiB --threads 1 --placement interleave"
    pages = json.loads(output(shaped, freebench))["pages_per_node"]
    assert min(pages) > 1024


@pytest.mark.parametrize("shaped", ["zram"], indirect=True)
def test_a_guest_may_swap_to_zram(shaped):
    (swap,) = shaped.read("/proc/swaps").splitlines()[1:]
    assert swap.split()[:3] == ["/dev/zram0", "partition", "65532"]
    before = shaped.read("/proc/vmstat").split("pswpout ")[1].split()[0]
    # Half of the pages of a tmpfs are written out if the group may only have the other half.
    output(
        shaped,
        "mkdir /tmp/group && mount -t cgroup2 none /tmp/group && mkdir /tmp/group/half && "
        "echo +memory >/tmp/group/cgroup.subtree_control && "
        "echo 16M >/tmp/group/half/memory.max && echo $$ >/tmp/group/half/cgroup.procs && "
        "mkdir /tmp/full && mount -t tmpfs none /tmp/full && "
        "dd if=/dev/zero of=/tmp/full/zeroes bs=1M count=32",
    )
    assert int(shaped.read("/proc/vmstat").split("pswpout ")[1].split()[0]) > int(before)


@pytest.mark.parametrize("shaped", ["disk"], indirect=True)
def test_a_guest_may_have_disks_and_swap_on_one(shaped):
    assert not [*shaped.spec.folder.glob("*.disk")]  # QEMU has them open
    sizes = [int(shaped.read(f"/sys/block/vd{letter}/size")) for letter in "abc"]
    assert [size * 512 >> 20 for size in sizes] == [64, 1024, 96]
    (swap,) = shaped.read("/proc/swaps").splitlines()[1:]
    assert swap.split()[:3] == ["/dev/vdc", "partition", str((96 << 10) - 4)]
    output(shaped, "mke2fs /dev/vda && mkdir /tmp/disk && mount -t ext4 /dev/vda /tmp/disk")
    output(shaped, "dd if=/dev/zero of=/tmp/disk/zeroes bs=1M count=32 && sync")
    assert "/tmp/disk" in shaped.read("/proc/mounts")
