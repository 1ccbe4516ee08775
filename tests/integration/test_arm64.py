"""arm64 guests: build, boot and measure. Slow if nothing is built yet."""

import contextlib
import json
import shutil

import pytest
from conftest import SMALL, link_state
from program import Labctl

from labctl.arch import ARM64
from labctl.errors import HostError
from labctl.guests import busybox
from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.lab.load import load

ROOT_FOLDERS = ("trees", "images", "guest")
KERNELS = ("stock", "parallel-free")
NODE = "/sys/devices/system/node"
BOOT_SECONDS = 300
ODD = """\
  odd:
    nodes: 3
    cpus_per_node: 2
    memory_per_node: 256MiB
    distances: {{matrix: [[10, 17, 40], [29, 10, 31], [40, 12, 10]]}}
  memory-only:
    nodes:
      - {{cpus: 2, memory: 256MiB}}
      - {{cpus: 1, memory: 128MiB}}
      - {{cpus: 0, memory: 128MiB}}
      - {{cpus: 0, memory: 192MiB}}
  no-memory:
    nodes:
      - {{cpus: 1, memory: 0}}
      - {{cpus: 2, memory: 256MiB}}
      - {{cpus: 0, memory: 128MiB}}
  unequal:
    nodes:
      - {{cpus: 1, memory: 128MiB}}
      - {{cpus: 1, memory: 256MiB}}
      - {{cpus: 1, memory: 512MiB}}
kernels:
"""
LAB = SMALL.replace("accel: auto", "arch: arm64").replace("kernels:\n", ODD, 1)


def missing():
    """Return the tools for arm64 that this host lacks, or an empty text."""
    for program in (ARM64.qemu, f"{ARM64.cross_compile}gcc"):
        if shutil.which(program) is None:
            return f"{program} is not installed: `make arm64`"
    try:
        busybox.find(ARM64)
    except HostError as error:
        return str(error)
    return ""


pytestmark = [pytest.mark.timeout(4 * 3600), pytest.mark.xdist_group("arm64")]


@pytest.fixture(scope="module")
def labctl(tmp_path_factory, request):
    """labctl in an arm64 lab with the checkout's images."""
    if not request.config.getoption("--long"):
        pytest.skip("builds two kernels by a cross compiler: only with --long")
    if missing():
        pytest.skip(missing())
    root = request.config.rootpath
    for name in ROOT_FOLDERS:
        (root / ".labctl" / name).mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("arm64")
    (folder / "lab.yaml").write_text(
        LAB.format(root=root, kconfig=f"[{root}/guest/kconfig/base.config]")
    )
    link_state(folder)
    program = Labctl(folder)
    yield program
    program.end()


@pytest.fixture(scope="module")
def ready(labctl):
    return prepare(load(labctl.folder / "lab.yaml"), KERNELS, lambda _: None)


@pytest.fixture(scope="module")
def guests(ready, labctl):
    """One guest of each kernel, side by side."""
    topology = ready.lab.guests["small"]
    specs = [
        ready.spec(name, name=name, folder=labctl.folder / name, topology=topology)
        for name in KERNELS
    ]
    with contextlib.ExitStack() as stack:
        booted = [stack.enter_context(Guest(spec)) for spec in specs]
        for guest in booted:
            guest.wait_ready(BOOT_SECONDS)
        yield dict(zip(KERNELS, booted, strict=True))


def distances(guest, nodes):
    rows = [guest.read(f"{NODE}/node{n}/distance").split() for n in range(nodes)]
    return [[int(distance) for distance in row] for row in rows]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_guest_has_four_nodes_a_cpu_each_and_their_distances(guests, kernel):
    guest = guests[kernel]
    assert guest.run(["uname", "-m"], timeout_seconds=60).text == "aarch64\n"
    assert "KernelPageSize:        4 kB\n" in guest.read("/proc/self/smaps")
    assert guest.read(f"{NODE}/online") == "0-3\n"
    assert distances(guest, 4) == [[10 if i == j else 21 for j in range(4)] for i in range(4)]
    assert [guest.read(f"{NODE}/node{n}/cpulist") for n in range(4)] == ["0\n", "1\n", "2\n", "3\n"]
    for node in range(4):
        total = guest.read(f"{NODE}/node{node}/meminfo").split("MemTotal:")[1].split()[0]
        assert 400 * 1024 < int(total) <= 512 * 1024


def test_the_line_carries_every_byte_both_ways(guests):
    data = bytes(range(256)) * 1024
    done = guests["stock"].run(["cat"], timeout_seconds=120, stdin=data)
    assert (done.status, done.stdout) == (0, data)
    failed = guests["stock"].run("echo no >&2; exit 7", timeout_seconds=60)
    assert (failed.status, failed.stderr) == (7, b"no\n")


def test_the_series_is_there_and_is_entered(guests):
    guest = guests["parallel-free"]
    guest.write("/sys/kernel/mm/transparent_hugepage/enabled", "never")
    guest.write("/sys/kernel/debug/parallel_free/batch_pages", "8192")
    free = ["freebench", "--op", "free", "--size", "256MiB", "--placement", "interleave"]
    before = int(guest.read("/sys/kernel/debug/parallel_free/handovers"))
    assert guest.run(free, timeout_seconds=300).status == 0
    assert int(guest.read("/sys/kernel/debug/parallel_free/handovers")) > before


@pytest.mark.parametrize("kernel", KERNELS)
def test_memory_keeps_its_contents(guests, kernel):
    words = ["integrity", "stale", "--seconds", "5", "--size", "32MiB", "--processes", "4"]
    done = guests[kernel].run(words, timeout_seconds=300)
    assert done.status == 0, done.stderr


def test_a_topology_may_be_any_other(ready, labctl):
    spec = ready.spec(
        "stock", name="odd", folder=labctl.folder / "odd", topology=ready.lab.guests["odd"]
    )
    with Guest(spec) as guest:
        guest.wait_ready(BOOT_SECONDS)
        assert distances(guest, 3) == [[10, 17, 40], [29, 10, 31], [40, 12, 10]]
        lists = [guest.read(f"{NODE}/node{n}/cpulist").strip() for n in range(3)]
        assert lists == ["0-1", "2-3", "4-5"]


@pytest.mark.parametrize(
    ("name", "cpus", "memory"),
    [
        ("memory-only", "0-1", "0-3"),
        ("no-memory", "0-1", "1-2"),
        ("unequal", "0-2", "0-2"),
    ],
)
def test_nodes_may_differ(ready, labctl, name, cpus, memory):
    """The guest is also compared with its topology when it boots."""
    topology = ready.lab.guests[name]
    spec = ready.spec("stock", name=name, folder=labctl.folder / name, topology=topology)
    with Guest(spec) as guest:
        guest.wait_ready(BOOT_SECONDS)
        assert guest.read(f"{NODE}/has_cpu").strip() == cpus
        assert guest.read(f"{NODE}/has_memory").strip() == memory


def test_an_experiment_is_measured_as_on_x86(labctl):
    labctl("run", "tiny")
    document = labctl.json("report", "--json")
    assert {kernel["arch"] for kernel in document["kernels"].values()} == {"arm64"}
    every = [json.loads(line) for line in labctl.samples()]
    samples = [sample for sample in every if not sample["warmup"]]
    assert {sample["status"] for sample in samples} == {"ok"}
    assert all(s["counters"]["handovers"] > 0 for s in samples if s["kernel"] == "parallel-free")
    assert "6.1." in labctl("report").stdout
    assert " arm64, image " in labctl("report").stdout
