"""Each ready workload runs in a guest of the stock kernel and prints its metrics."""

import os
import re
import subprocess
import sys

import pytest
from conftest import KCONFIG, ROOT, link_state

from labctl.arch import X86_64
from labctl.errors import HostError
from labctl.lab.shelf import SHELF
from labctl.lab.state import StateFolder
from labctl.workloads.packages import unpacked

LAB = """\
version: 1
defaults: {{accel: auto, guest: small}}
guests:
  small: {{nodes: 4, cpus_per_node: 1, memory_per_node: 512MiB, distances: {{remote: 21}}}}
kernels:
  stock: {{source: debian:linux-source-6.1, kconfig: {kconfig}}}
workloads:
{workloads}
"""
# One boot for all: this is no measurement.
TEST = """\
import pytest
from labctl.lab.shelf import SHELF

@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", {names})
def test_it(shared_guest, measure, name):
    measured = measure(name)
    print(name, measured)
    assert measured.value > 0
    for metric in SHELF[name].metrics:
        assert {{metric, f"{{metric}}_nanoseconds"}} & set(measured.measurements)
"""
# Without --long, since emulation is slow.
SMALL = {"size": "64MiB", "seconds": 1, "groups": 1, "loops": 2, "ops": 1}
SMALL_OF = {"stress-ng-mmap": {"size": "256KiB"}}
PACKAGED = [name for name, entry in SHELF.items() if "packages" in entry.workload]
OWN = [name for name in SHELF if name not in PACKAGED]


@pytest.fixture
def check(tmp_path, prepared, long):
    """Return a function that runs workloads, each in a test of its own."""

    def of(names):
        lines = "\n".join(f"  {name}: {{use: {name}{_parameters(name, long)}}}" for name in names)
        (tmp_path / "lab.yaml").write_text(LAB.format(kconfig=KCONFIG, workloads=lines))
        link_state(tmp_path)
        (tmp_path / "test_it.py").write_text(TEST.format(names=names))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        argv = [sys.executable, "-m", "pytest", "-v", "-rA", "-p", "no:cacheprovider"]
        said = subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        ).stdout
        passed = re.findall(r"^test_it.py::test_it\[stock-(\S+)\] PASSED", said, re.MULTILINE)
        assert passed == names, said

    return of


def _parameters(name, long):
    values = {**SMALL, **SMALL_OF.get(name, {})}
    text = ", ".join(f"{k}: {v}" for k, v in values.items() if k in SHELF[name].parameters)
    return f", parameters: {{{text}}}" if text and not long else ""


def test_workloads_with_programs_of_labctl_run(check):
    check(OWN)


def test_workloads_with_programs_of_packages_run(check, long):
    if not long:
        pytest.skip("downloads packages for minutes: only with --long")
    store = StateFolder(ROOT / ".labctl").initramfs / "packages"
    store.mkdir(parents=True, exist_ok=True)
    for name in PACKAGED:
        try:
            unpacked(SHELF[name].workload["packages"], store, X86_64)
        except HostError as error:
            pytest.skip(f"{name}: {error}")
    check(PACKAGED)
