"""The pytest plugin with real guests: failures, reports, and waiting for other runs."""

import itertools
import os
import re
import subprocess
import sys

import pytest

SMALL = """
import os, signal, time
from pathlib import Path
import pytest
from labctl.errors import GuestPanic, GuestSplat

pytestmark = [
    pytest.mark.kernels("stock"),
    pytest.mark.topology(nodes=1, memory_per_node="256MiB"),
]
WARNING = "echo 'WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x0/0x1' > /dev/kmsg"
"""
FAILING = """
@pytest.fixture
def noisy(guest):
    yield guest
    guest.run(WARNING)

@pytest.fixture
def noisy_behind_our_back(shared_guest):
    yield shared_guest
    from labctl.guests.guest import Guest
    check, Guest.check = Guest.check, lambda *_: None
    try:
        shared_guest.run(WARNING)
    finally:
        Guest.check = check

def test_expected(guest):
    with pytest.raises(GuestSplat):
        guest.run(WARNING)
    with pytest.raises(GuestPanic):
        guest.run("echo c > /proc/sysrq-trigger")

def test_at_teardown(noisy): pass

def test_wrong(guest):
    assert guest.output("uname -s") == "Minix"

def test_shared_at_teardown(noisy_behind_our_back): pass

def test_shared_lost(shared_guest):
    shared_guest.run("echo c > /proc/sysrq-trigger")

def test_shared_after(shared_guest): pass
"""
# Two processes and room for one guest: each test records the time span of its guest.
CROWDED = """
@pytest.fixture
def lone(guest):
    began = time.time()
    yield guest
    with open(Path(__file__).with_name("spans"), "a") as file:
        file.write(f"{began} {time.time()}\\n")
"""
CROWDED_TEST = """
def test_it(lone):
    lone.output("sleep 1")
"""
COMPARED = """
def test_it(measure):
    result = measure.compare("tiny", seed=5)
    cell = result["parallel-free"]
    assert (cell.blocks, cell.n) == (2, 2)
    assert cell.counters["handovers"] > 0
    assert cell.verdict == "faster", result  # two blocks are too few for a verdict
"""
KILLED_TEST = """
def test_it(guest):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def inner(small_lab):
    def run(*words):
        argv = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *words]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        return subprocess.run(
            argv, cwd=small_lab, env=environment, capture_output=True, text=True, check=False
        ).stdout

    return run


def test_what_a_kernel_complains_of_fails_its_test_and_the_guest_can_be_kept(
    small_lab, inner, labctl
):
    (small_lab / "test_failing.py").write_text(SMALL + FAILING)
    output = inner("--lab-keep-failed")
    outcomes = dict(re.findall(r"^test_failing.py::(\w+)\[stock\] (\w+)", output, re.MULTILINE))
    assert outcomes["test_expected"] == "PASSED"
    assert outcomes["test_wrong"] == "FAILED"
    assert outcomes["test_shared_lost"] == outcomes["test_shared_after"] == "FAILED"
    for name in ("test_at_teardown", "test_shared_at_teardown"):
        result = output.partition(f"ERROR at teardown of {name}[stock]")[2].partition(
            "kernel warnings of"
        )
        assert "WARNING: CPU: 0 PID: 1" in result[0]
        assert "WARNING: CPU: 0 PID: 1" in result[2].partition("how to inspect")[0]
    assert "test_failing-stock was lost in an earlier test" in output
    assert output.count("sysrq: Trigger a crash") == 1  # in the report of the test that did it
    assert "labctl/guests/guest.py" not in output  # the traceback ends in the test

    up = {row["name"]: row["state"] for row in labctl.json("status", "--json")["guests"]}
    assert up["test_failing-test_wrong-stock"] == "ready"
    assert "test_failing-test_expected-stock" not in up
    (command,) = re.findall(r"labctl (exec --lab \S+ \S*test_wrong\S*) dmesg", output)
    assert labctl(*command.split(), "uname -s").stdout == "Linux\n"
    labctl("down")
    assert labctl.guests_running() == []


def test_processes_wait_for_room_and_the_killed_give_theirs_back(small_lab, inner):
    for name in ("a", "b", "c"):
        (small_lab / f"test_{name}.py").write_text(SMALL + CROWDED + CROWDED_TEST)
    (small_lab / "killed.py").write_text(SMALL + KILLED_TEST)
    assert "passed" not in inner("killed.py", "--lab-memory=600MiB")
    assert list((small_lab / ".labctl/leases").glob("*.lease"))
    output = inner("-n2", "--dist=loadfile", "--lab-memory=600MiB")
    assert "3 passed" in output, output
    spans = sorted(
        tuple(map(float, line.split())) for line in (small_lab / "spans").read_text().splitlines()
    )
    assert len(spans) == 3
    for (_, ended), (began, _) in itertools.pairwise(spans):
        assert ended <= began
    assert list((small_lab / ".labctl/leases").glob("*.lease")) == []


@pytest.mark.xdist_group("measuring")
def test_kernels_are_compared_by_the_labs_statistics(small_lab, inner, labctl):
    # Two CPUs: with one CPU there is no worker to hand pages to.
    lab = (small_lab / "lab.yaml").read_text().replace("nodes: 4", "nodes: 2")
    lab = lab.replace("size: 256MiB", "size: 128MiB").replace("repetitions: 2", "repetitions: 1")
    (small_lab / "lab.yaml").write_text(lab)
    (small_lab / "test_it.py").write_text(COMPARED)
    output = inner()
    assert "1 failed" in output
    (result,) = re.findall(r"^E +AssertionError: (undecided, .*)", output, re.MULTILINE)
    assert result.startswith("undecided, parallel-free against stock: ratio")
    assert "A/A control: stock against itself" in output
    # Under CI=1, pytest repeats the whole message in its short summary.
    (run,) = set(re.findall(r"for details, run `labctl report (\S+)`", output))
    document = labctl.json("report", run, "--json", check=False)
    assert document["experiments"][0]["name"] == "tiny"
