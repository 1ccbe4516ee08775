"""Each ready workload runs in blocks on the stock kernel, and prints its metrics."""

import json

import pytest
from click.testing import CliRunner
from conftest import KCONFIG, ROOT, link_state
from program import Labctl

from labctl.arch import X86_64
from labctl.cli import labctl
from labctl.errors import HostError
from labctl.lab.shelf import SHELF
from labctl.lab.state import StateFolder
from labctl.workloads.packages import unpacked

# Runs on one host wait for each other.
pytestmark = pytest.mark.xdist_group("measuring")
BLOCKS = 2  # the fewest
LAB = """\
version: 1
defaults: {{accel: auto, guest: small}}
guests:
  small: {{nodes: 4, cpus_per_node: 1, memory_per_node: 512MiB, distances: {{remote: 21}}}}
kernels:
  stock: {{source: debian:linux-source-6.1, kconfig: {kconfig}}}
workloads:
  ready: {{use: {name}{parameters}}}
experiments:
  one:
    workload: ready
    kernels: [stock]
    statistics: {{blocks: {{min: {blocks}, max: {blocks}}}, repetitions: 1, warmup: 0}}
"""
# Without --long, since emulation is slow.
SMALL = {"size": "64MiB", "seconds": 1, "groups": 1, "loops": 2, "ops": 1}
SMALL_OF = {"stress-ng-mmap": {"size": "256KiB"}}
# One of each program that labctl compiles; the others take minutes, only with --long.
QUICK = {"munmap", "time-unmap", "exit-free", "page_fault1"}
LISTED = json.loads(CliRunner().invoke(labctl, ["workloads", "--json"]).stdout)["workloads"]
METRICS = {one["name"]: [metric["name"] for metric in one["metrics"]] for one in LISTED}


def bring_packages(name):
    """Download the packages of a workload into the store of the checkout, or skip."""
    store = StateFolder(ROOT / ".labctl").initramfs / "packages"
    store.mkdir(parents=True, exist_ok=True)
    try:
        unpacked(SHELF[name].workload["packages"], store, X86_64)
    except HostError as error:
        pytest.skip(f"{name}: {error}")


def parameters(name, long):
    values = {**SMALL, **SMALL_OF.get(name, {})}
    text = ", ".join(f"{k}: {v}" for k, v in values.items() if k in SHELF[name].parameters)
    return f", parameters: {{{text}}}" if text and not long else ""


@pytest.mark.parametrize("name", METRICS)
def test_a_ready_workload_runs_in_blocks_and_has_its_metrics(name, tmp_path, prepared, long):
    if name not in QUICK and not long:
        pytest.skip("boots four guests: only with --long")
    if "packages" in SHELF[name].workload:
        bring_packages(name)
    text = LAB.format(kconfig=KCONFIG, name=name, parameters=parameters(name, long), blocks=BLOCKS)
    (tmp_path / "lab.yaml").write_text(text)
    link_state(tmp_path)
    program = Labctl(tmp_path)
    done = program("run", "one", check=False)
    samples = [json.loads(line) for line in program.samples()]
    places = {(sample["block"], sample["control"]) for sample in samples}
    assert places == {(block, control) for block in range(BLOCKS) for control in (False, True)}
    assert {sample["status"] for sample in samples} == {"ok"}, done.stderr
    for sample in samples:
        assert sample["value"] > 0
        for metric in METRICS[name]:
            assert {metric, f"{metric}_nanoseconds"} & set(sample["measurements"])
