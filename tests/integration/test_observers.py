"""Counters of real guests: read around each repetition, stored, exported and explained."""

import csv
import io
import json
import shutil

import pytest
from conftest import ROOT

# Runs on one host wait for each other.
pytestmark = pytest.mark.xdist_group("measuring")
PAGES = 64 * 256  # of 64 MiB
SET = "    set: {thp: never, batch_pages: 8Ki}\n"


def rewrite(labctl, *changes):
    """Replace texts of the lab; the workload is small, since each fault is emulated."""
    path = labctl.folder / "lab.yaml"
    text = path.read_text()
    for old, new in (("size: 256MiB", "size: 64MiB"), *changes):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_the_counters_of_a_repetition_are_in_its_sample(labctl):
    rewrite(labctl, (SET, f"{SET}    observe: [vmstat, interrupts, slab, buddyinfo]\n"))
    labctl("run", "tiny", check=False)
    samples = [json.loads(line) for line in labctl.samples()]
    measured = [s for s in samples if not s["warmup"]]
    observed = [s["counters"] for s in measured if any("." in name for name in s["counters"])]
    assert len(measured) == 12
    assert len(observed) == 6
    for counters in observed:
        # freebench touches its memory and frees it; the shell that reads the files adds some.
        assert PAGES <= counters["vmstat.pgfault"] < 1.5 * PAGES
        assert counters["vmstat.pgfree"] >= PAGES
        assert counters["interrupts.LOC"] > 0
        assert "slab.vm_area_struct.objects" in counters
        places = {name.split(".")[1] for name in counters if name.startswith("buddyinfo.")}
        assert places == {"node0", "node1", "node2", "node3"}
    rows = list(csv.DictReader(io.StringIO(labctl("export", "--format", "csv").stdout)))
    counts = [row["counter.vmstat.pgfault"] for row in rows if row["warmup"] == "False"]
    assert sum(count != "" for count in counts) == 6
    (experiment,) = labctl.json("explain", "--json")["experiments"]
    assert experiment["cost"]["blocks"] == 2
    assert "at least 6 are needed" in labctl("explain").stdout


def test_an_option_that_an_observer_needs_is_named_before_the_build(labctl):
    rewrite(labctl, (SET, f"{SET}    observe: [vmstat, psi]\n"))
    done = labctl("run", "tiny", check=False)
    assert done.returncode == 2
    assert "experiments.tiny.observe[1]: kernel stock has no CONFIG_PSI" in done.stderr
    assert "psi.config" in done.stderr


# Pages are cleared when they are freed instead of when they are allocated.
IMAGES = """\
version: 1
defaults: {{accel: auto, guest: small}}
guests:
  small: {{nodes: 4, cpus_per_node: 1, memory_per_node: 256MiB, distances: {{remote: 21}}}}
kernels:
  stock: {{source: "image:{image}"}}
  clearing: {{source: "image:{image}", command_line: init_on_free=1}}
workloads:
  free:
    command: freebench
    parameters: {{op: free, size: 64MiB, placement: interleave, threads: 4}}
    metric: elapsed
experiments:
  tiny:
    workload: free
    kernels: [stock, clearing]
    observe: [perf, stacks]
    statistics: {{blocks: {{min: 2, max: 2}}, repetitions: 2}}
"""


@pytest.mark.skipif(shutil.which("perf") is None, reason="the host has no perf to bring along")
def test_perf_counts_and_samples_stacks_without_counters_of_the_cpu(labctl, prepared):
    stock, image = prepared.images["stock"], labctl.folder / "bzImage"
    shutil.copy(stock.bzimage, image)
    shutil.copy(stock.config, f"{image}.config")
    (labctl.folder / "lab.yaml").write_text(IMAGES.format(image=image))
    labctl("run", "--why", "tiny", check=False)
    (run,) = (labctl.folder / ".labctl/runs").iterdir()

    def observed(name):
        lines = (run / name / "samples.jsonl").read_text().splitlines()
        every = [sample["counters"] for sample in map(json.loads, lines) if not sample["warmup"]]
        found = [counters for counters in every if counters]
        assert len(every) == 2 * len(found) == 12
        return found

    for counters in observed("perf"):
        assert counters["perf.page-faults"] > 0
        assert counters["perf.context-switches"] > 0
    stacks = observed("stacks")
    assert all(any(";do_syscall_64;" in name for name in counters) for counters in stacks)
    assert any(";__x64_sys_munmap;" in name for counters in stacks for name in counters)
    by_observer = {
        each["observers"][0]: each for each in labctl.json("explain", "--json")["experiments"]
    }
    assert {each["cost"]["blocks"] for each in by_observer.values()} == {2}
    frames = {each["frame"]: each for each in by_observer["stacks"]["cells"][0]["frames"]}
    callers = {name.rpartition(";")[0] for name in frames} - {""}
    assert callers <= set(frames)
    page = labctl("report", "--format", "html", check=False).stdout
    assert '<svg role="img" aria-label="Flame graph of the difference, tiny: stacks: ' in page


@pytest.mark.long("builds six kernels")
@pytest.mark.timeout(4 * 3600)
def test_a_planted_lock_is_the_first_function_and_the_first_lock(labctl):
    rewrite(
        labctl,
        (SET, "    set: {thp: never}\n    observe: [vmstat, functions, lock_stat]\n"),
        ("blocks: {min: 2, max: 2}", "blocks: {min: 8, max: 8}"),
        (f"{ROOT}/patches/parallel-free/6.1", f"{ROOT}/tests/planted/extra-lock"),
        ("parallel-free", "planted"),
    )
    labctl("run", "--why", "tiny", check=False)
    found = {
        each["observers"][0]: each["cells"][0]
        for each in labctl.json("explain", "--json")["experiments"]
    }
    assert found["functions"]["changes"][0]["counter"].startswith("functions.take_planted_lock.")
    assert found["lock_stat"]["changes"][0]["counter"].startswith("lock_stat.planted_lock.")
