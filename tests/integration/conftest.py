"""Real kernels in real guests. Images are built once, in the checkout's .labctl."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from program import Labctl

from labctl.guests.prepare import prepare
from labctl.lab.load import load
from labctl.testing.leases import locked

ROOT = Path(__file__).parent.parent.parent
# All fragments that labctl adds for SSH, gdb, virtme-ng, kexec, roots, guests and `verify`.
# Duplicates count once, so every lab with this list has the same image, and the kernel is built
# only once.
SHAPES = ("hmat", "hotplug", "disks", "swap")
FRAGMENTS = ("base", "gdb", "ssh", "kexec", "virtme", "root", *SHAPES, "poison")
KCONFIG = "[" + ", ".join(f"{ROOT}/guest/kconfig/{name}.config" for name in FRAGMENTS) + "]"
SMALL = """\
version: 1
defaults: {{accel: auto, guest: small}}
guests:
  small: {{nodes: 4, cpus_per_node: 1, memory_per_node: 512MiB, distances: {{remote: 21}}}}
kernels:
  stock: {{source: debian:linux-source-6.1, kconfig: {kconfig}}}
  parallel-free: {{base: stock, series: {root}/patches/parallel-free/6.1}}
tunables:
  batch_pages:
    file: /sys/kernel/debug/parallel_free/batch_pages
    kernels: [parallel-free]
  thp: {{file: /sys/kernel/mm/transparent_hugepage/enabled}}
workloads:
  free:
    command: freebench
    parameters: {{op: free, size: 256MiB, placement: interleave, threads: 4}}
    metric: elapsed
experiments:
  tiny:
    workload: free
    kernels: [stock, parallel-free]
    set: {{thp: never, batch_pages: 8Ki}}
    statistics:
      blocks: {{min: 2, max: 2}}
      repetitions: 2
"""


def link_state(folder):
    """Share the checkout's builds with a lab in a folder."""
    state = folder / ".labctl"
    state.mkdir()
    for name in ("sources", "sources.json", "trees", "images", "guest", "accelerator.json"):
        if (ROOT / ".labctl" / name).exists():
            (state / name).symlink_to(ROOT / ".labctl" / name)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="Also run tests that take hours.")


def pytest_configure(config):
    # In two processes, tests that wait for each other's builds exceed their time limits.
    if config.getoption("dist", "no") == "load":
        raise pytest.UsageError("-n without --dist loadgroup: tests of a group need one process")
    config.addinivalue_line("markers", "long(why): run the test only with --long")
    # Not yet errors here, as in the unit tests: some tests leave terminals open.
    config.addinivalue_line("filterwarnings", "default::ResourceWarning")
    config.addinivalue_line("filterwarnings", "default::pytest.PytestUnraisableExceptionWarning")


def pytest_collection_modifyitems(config, items):
    # By a marker, so that fixtures that take a minute are not set up for a skipped test.
    for item in items:
        marker = item.get_closest_marker("long")
        if marker is not None and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason=f"{marker.args[0]}: only with --long"))
    # The first test builds the kernel, which can exceed the default timeout of five minutes.
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def long(request):
    return request.config.getoption("--long")


@pytest.fixture(scope="session")
def prepared():
    """The project's lab; its stock kernel is the only one with nothing but base.config."""
    with locked(ROOT / ".labctl" / "leases" / "prepare.lock"):  # as the plugin does
        return prepare(load(ROOT / "lab.yaml"), ["stock"], lambda _: None)


@pytest.fixture
def small_lab(tmp_path, prepared):
    """A lab of small guests in its own folder, with the checkout's images."""
    (tmp_path / "lab.yaml").write_text(SMALL.format(root=ROOT, kconfig=KCONFIG))
    link_state(tmp_path)
    return tmp_path


@pytest.fixture
def labctl(small_lab):
    program = Labctl(small_lab)
    yield program
    program.end()


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The python of a fresh environment with our wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")

    def run(*words):
        subprocess.run(words, check=True, capture_output=True, cwd=folder)

    offline = ("--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *offline, "-w", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv/bin/python"
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    others = [path for path in sys.path if path.endswith("site-packages")]
    (folder / purelib / "dependencies.pth").write_text("\n".join(others) + "\n")
    run(python, "-m", "pip", "install", *offline[:2], wheel)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)  # it may name the checkout
        yield python
