"""Each workload of the shelf runs in a guest of the stock kernel and prints its metrics."""

import os
import re
import subprocess
import sys

from conftest import KCONFIG, link_state

from labctl.lab.shelf import SHELF

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
TEST = """\
import pytest
from labctl.lab.shelf import SHELF

pytestmark = pytest.mark.timeout(900)

@pytest.mark.parametrize("name", {names})
def test_it(shared_guest, measure, name):
    measured = measure(name)
    print(name, measured.value, measured.measurements)
    assert measured.value > 0
    for metric in SHELF[name].metrics:
        found = measured.measurements
        assert metric in found or f"{{metric}}_nanoseconds" in found
"""
# Small values: emulation is slow, and this is no measurement.
SMALL = {
    "size": "64MiB",
    "seconds": 1,
    "groups": 1,
    "loops": 2,
    "ops": 1,
}
# They write most of the memory, or compile 64 files.
SLOW = ("time-unmap", "exit-free", "kernel-build")


def entry(name, long):
    small = {key: value for key, value in SMALL.items() if key in SHELF[name].parameters}
    if name == "stress-ng-mmap":
        small["size"] = "256KiB"
    text = ", ".join(f"{key}: {value}" for key, value in small.items())
    changed = f", parameters: {{{text}}}" if text and not long else ""
    return f"  {name}: {{use: {name}{changed}}}"


def test_each_ready_workload_runs_on_stock(tmp_path, prepared, long):
    """With --long all of them at their default sizes, otherwise the quick ones at small ones."""
    names = [name for name in SHELF if long or name not in SLOW]
    lines = "\n".join(entry(name, long) for name in names)
    (tmp_path / "lab.yaml").write_text(LAB.format(kconfig=KCONFIG, workloads=lines))
    link_state(tmp_path)
    (tmp_path / "test_it.py").write_text(TEST.format(names=names))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    argv = [sys.executable, "-m", "pytest", "-v", "-rA", "-p", "no:cacheprovider"]
    said = subprocess.run(
        argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    ).stdout
    passed = re.findall(r"^test_it.py::test_it\[(?:stock-)?(\S+?)(?:-stock)?\] PASSED", said, re.M)
    assert passed == names, said
