"""The shelf: its entries, what `use:` makes of them, and labctl's own programs on this host."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from labctl.cli import labctl
from labctl.errors import ConfigError
from labctl.experiments.repetition import value_of
from labctl.host.shipped import PROGRAMS, shipped
from labctl.lab.load import load
from labctl.lab.shelf import SHELF
from labctl.transports import Outcome

# What the programs of packages print, cut to the lines that matter.
HACKBENCH = """\
Running in process mode with 1 groups using 40 file descriptors each (== 40 tasks)
Each sender will pass 2 messages of 100 bytes
Time: 0.012
"""
STRESS_NG = """\
stress-ng: info:  [24153] dispatching hogs: 2 {0}
stress-ng: metrc: [24153] stressor       bogo ops real time  usr time  sys time   bogo ops/s
stress-ng: metrc: [24153]                           (secs)    (secs)    (secs)   (real time)
stress-ng: metrc: [24153] {0}                    4      0.29      0.01      0.02        13.92   7
stress-ng: info:  [24153] successful run completed in 0.37s
"""
PERF = """\
# function 'default' (Default memset() provided by glibc)
1697869653.218189
"""
SYSBENCH = """\
Total operations: 2048 ( 2040.12 per second)

2048.00 MiB transferred (2040.12 MiB/sec)
"""
FIO = {"jobs": [{"jobname": "x", "read": {"bw_bytes": 52_000_000, "iops": 12695.3}}]}
RATES = {"rate": 8000.5, "least_rate": 3000.0, "most_rate": 5000.5}
TIMES = ("elapsed", "cpu", "other_cpu", "memory_back", "populate")
FREEBENCH = {f"{name}_nanoseconds": 2_000_000_000 for name in TIMES}
OUTPUTS = {
    **dict.fromkeys(("free", "munmap", "dontneed", "exit"), (json.dumps(FREEBENCH), 2.0)),
    **dict.fromkeys(("time-unmap", "exit-free"), (json.dumps(FREEBENCH), 2.0)),
    **{f"page_fault{n}": (json.dumps(RATES), 8000.5) for n in (1, 2, 3)},
    "brk1": (json.dumps(RATES), 8000.5),
    "hackbench": (HACKBENCH, 0.012),
    "stress-ng-vm": (STRESS_NG.format("vm"), 13.92),
    "stress-ng-mmap": (STRESS_NG.format("mmap"), 13.92),
    "sysbench-memory": (SYSBENCH, 2040.12 * 1.048576),
    "fio-mmap": (json.dumps(FIO, indent=2), 12695.3),
    "fio-page-cache": (json.dumps(FIO, indent=2), 52.0),
    "perf-bench-mem": (PERF, 1697.869653218189),
    "kernel-build": ("", 10.0),
}


@pytest.fixture
def lab(tmp_path):
    """Return a function that loads a lab with one workload, and an experiment of it."""

    def write(workload, **experiment):
        content = {
            "guests": {"numa": {"nodes": 2, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "kernels": {"stock": {"source": "debian:linux-source-6.1"}},
            "tunables": {"thp": {"file": "/sys/kernel/mm/transparent_hugepage/enabled"}},
            "workloads": {"mine": workload},
            "experiments": {"one": {"workload": "mine", "kernels": ["stock"], **experiment}},
        }
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return load(path)

    return write


@pytest.fixture
def problems(lab):
    """Return a function that returns the errors of such a lab: (line, column, key, what)."""

    def found(workload, **experiment):
        with pytest.raises(ConfigError) as caught:
            lab(workload, **experiment)
        return [(p.key, p.what, p.hint) for p in caught.value.problems]

    return found


@pytest.mark.parametrize("name", SHELF)
def test_an_entry_is_a_valid_workload_whose_output_is_understood(lab, name):
    entry = SHELF[name]
    loaded = lab({"use": name})
    workload = loaded.workloads["mine"]
    assert workload.metric == next(iter(entry.metrics))
    assert loaded.better_of("one") == entry.metrics[workload.metric].better
    assert dict(workload.parameters) == {k: one.default for k, one in entry.parameters.items()}
    text, value = OUTPUTS[name]
    outcome = Outcome("x", 0, text.encode(), b"", 10.0)
    found, measurements = value_of(outcome, workload, workload.metric)
    assert found == pytest.approx(value)
    for metric in entry.metrics:
        assert metric in measurements or f"{metric}_nanoseconds" in measurements
    assert entry.needs
    assert len(entry.good_for) <= 90


def test_the_shelf_has_the_workloads_of_the_field():
    assert len(SHELF) >= 12
    assert set(OUTPUTS) == set(SHELF)


def test_parameters_override_the_defaults_and_are_settings_of_experiments(lab):
    loaded = lab(
        {"use": "exit-free", "parameters": {"threads": 2}}, matrix={"size": ["64MiB", "10%"]}
    )
    workload = loaded.workloads["mine"]
    assert workload.argv() == ["./exit-free", "--size", "80%", "--threads", "2"]
    assert loaded.experiments["one"].matrix == {"size": (64 << 20, "10%")}


def test_other_keys_override_single_ones(lab):
    own = {
        "use": "fio-mmap",
        "timeout": "1h",
        "env": {"A": "1"},
        "metrics": {"tail_latency": {"parse": "$.jobs[0].read.clat_ns.max", "unit": "ns"}},
        "metric": "tail_latency",
        "setup": {"boot": "true"},
    }
    workload = lab(own).workloads["mine"]
    assert (workload.metric, workload.timeout) == ("tail_latency", 3600.0)
    assert list(workload.metrics) == ["rate", "tail_latency"]
    assert workload.packages == ("fio",)
    assert workload.setup.boot == "true"


@pytest.mark.parametrize(
    ("own", "key", "what", "hint"),
    [
        ({"use": "hackbnch"}, "use", "unknown ready workload 'hackbnch'", "hackbench?"),
        ({"use": "free", "command": "x"}, "command", "conflicts with `use:`", "one of the two"),
        ({"use": "free", "packages": ["fio"]}, "packages", "conflicts with `use:`", "brings"),
        (
            {"use": "kernel-build", "setup": {"repetition": "true"}},
            "setup.repetition",
            "conflicts with that of kernel-build",
            "remove it",
        ),
        (
            {"use": "brk1", "parameters": {"task": 4}},
            "parameters.task",
            "brk1 has no parameter 'task'",
            "tasks?",
        ),
        ({"use": ["free"]}, "use", "expected text, got a list", ""),
        ({"use": "free", "parameters": {"size": "101%"}}, "parameters.size", "a size", ""),
    ],
)
def test_a_mistake_beside_use_is_one_error(problems, own, key, what, hint):
    ((found, said, help_),) = problems(own, set={"thp": "never"})
    assert found == f"workloads.mine.{key}"
    assert what in said
    assert hint in (help_ or "")


def test_an_unknown_name_does_not_make_settings_wrong(problems):
    assert len(problems({"use": "nothing"}, set={"groups": 1}, metric="rate")) == 1


def test_a_workload_without_anything_is_told_of_use(problems):
    ((_, what, _),) = problems({"timeout": "1min"})
    assert "`use:`" in what


def started(lab, tmp_path, name, programs, **parameters):
    """Run an entry's script with fake programs that print their arguments."""
    workload = lab({"use": name, "parameters": parameters}).workloads["mine"]
    for program in programs:
        (tmp_path / program).write_text('#!/bin/sh\necho "$(basename "$0") $*"\n')
        (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        workload.argv(), cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_parameters_become_options_in_the_programs_own_form(lab, tmp_path):
    said = started(lab, tmp_path, "hackbench", ["hackbench"], groups=3, channel="socket")
    assert said == "hackbench -g 3 -l 50 -s 100\n"
    assert "--pipe" in started(lab, tmp_path, "hackbench", ["hackbench"])
    said = started(lab, tmp_path, "sysbench-memory", ["sysbench"], threads=3, block_size="4KiB")
    assert "--threads=3 " in said
    assert "--memory-block-size=4096 " in said
    said = started(lab, tmp_path, "stress-ng-vm", ["stress-ng"], threads=3, ops=2, size="64MiB")
    assert "--vm 3 --vm-bytes 67108864 --vm-ops 6 " in said
    assert "mem memset --size 67108864B " in started(
        lab, tmp_path, "perf-bench-mem", ["perf"], size="64MiB"
    )


def test_a_share_of_the_memory_becomes_whole_mebibytes(lab, tmp_path):
    with Path("/proc/meminfo").open() as file:
        total = int(file.readline().split()[1])
    said = started(lab, tmp_path, "perf-bench-mem", ["perf"], size="50%")
    assert f"--size {total // 2048}MB " in said
    said = started(
        lab, tmp_path, "fio-mmap", ["fio"], size="10%", threads=2, directory=str(tmp_path)
    )
    assert f"--size={total * 10 // 102400 * 2**20 // 2} " in said
    assert list(tmp_path.glob("fio.*")) == []


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Return a function that compiles the program of an entry as labctl does."""
    folder = tmp_path_factory.mktemp("shelf")

    def of(name):
        entry = SHELF[name].plain(str(shipped(PROGRAMS)))
        sources = entry["build"]["sources"]
        program = folder / sources[0].rpartition("/")[2].removesuffix(".c")
        if not program.exists():
            words = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
            words += ["-o", str(program), *sources, entry["build"]["flags"]]
            subprocess.run(words, check=True)
        return program

    return of


def test_the_large_processes_report_what_they_did(compiled):
    for name in ("time-unmap", "exit-free"):
        words = [compiled(name), "--size", "8MiB", "--threads", "2"]
        found = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
        assert (found["size_bytes"], found["threads"]) == (8 << 20, 2)
        assert found["elapsed_nanoseconds"] > 0
        assert found["populate_nanoseconds"] > 0


@pytest.mark.parametrize(
    ("test", "mode"),
    [
        ("page_fault1", "processes"),
        ("page_fault2", "processes"),
        ("page_fault3", "threads"),
        ("brk1", "threads"),
    ],
)
def test_tasks_count_their_operations(compiled, test, mode):
    words = [compiled(test), "--test", test, "--mode", mode, "--tasks", "2"]
    words += ["--size", "1MiB", "--seconds", "1"]
    found = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert (found["test"], found["tasks"]) == (test, 2)
    assert found["least_rate"] <= found["rate"] / 2 <= found["most_rate"]
    assert found["rate"] > 1


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--size", "80"], "expected a size like 512MiB or a share like 80%"),
        (["--size", "101%"], "expected a size"),
        (["--size", "8M"], "expected a size"),
        (["--threads", "0"], "--threads: 0 is not a number from 1"),
        (["8MiB"], "8MiB: unexpected argument"),
    ],
)
def test_wrong_arguments_of_own_programs_are_told(compiled, words, what):
    done = subprocess.run(
        [compiled("time-unmap"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert what in done.stderr


def test_the_command_lists_and_describes():
    said = CliRunner().invoke(labctl, ["workloads"], catch_exceptions=False).stdout
    assert all(name in said for name in SHELF)
    said = CliRunner().invoke(labctl, ["workloads", "fio-mmap"], catch_exceptions=False).stdout
    assert "needs: Debian package fio" in said
    assert "iops" in said
    assert "/tmp" in said
    done = CliRunner().invoke(labctl, ["workloads", "--json"], catch_exceptions=False)
    document = json.loads(done.stdout)
    assert [one["name"] for one in document["workloads"]] == list(SHELF)
    (of_brk,) = [one for one in document["workloads"] if one["name"] == "brk1"]
    assert of_brk["metrics"][0]["better"] == "higher"
    assert {one["name"] for one in of_brk["parameters"]} == set(SHELF["brk1"].parameters)
