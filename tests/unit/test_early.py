"""What would fail after a build of minutes is reported before it."""

import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from labctl.arch import X86_64
from labctl.errors import ConfigError, HostError
from labctl.experiments import early
from labctl.experiments.plan import plan
from labctl.guests import busybox
from labctl.host.facts import read_facts
from labctl.lab.load import load
from labctl.transports import Outcome


@pytest.fixture
def planned(tmp_path):
    """Return a function that writes a lab with a command and returns it with its plans."""

    def write(command, **defaults):
        content = {
            "version": 1,
            "defaults": defaults,
            "guests": {"numa": {"nodes": 2, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "kernels": {"stock": {"source": "debian:linux-source-6.1"}},
            "workloads": {"mine": {"command": command, "metric": "elapsed"}},
            "experiments": {"one": {"workload": "mine", "kernels": ["stock"]}},
        }
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        lab = load(path)
        return lab, [plan(lab, "one", 0)]

    return write


def problem_of(check, *arguments):
    with pytest.raises(ConfigError) as caught:
        check(*arguments)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    "command",
    [
        "freebench",
        "integrity --seconds 5",
        "sh -c 'exit 3'",
        "/bin/sh",
        "/usr/sbin/sh",
        "env A=1 x",
    ],
)
def test_commands_of_the_guest_pass(planned, command):
    early.check_commands(*planned(command))


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("freebensh", "did you mean freebench?"),
        ("/opt/mybench", "guests have busybox"),
        ("/root/sh", "guests have busybox"),
        ("python3 bench.py", "brings the program of the host"),
        ("'a program'", "guests have busybox"),
    ],
)
def test_a_command_that_the_guest_does_not_have_is_reported(planned, command, hint):
    lab, plans = planned(command)
    problem = problem_of(early.check_commands, lab, plans)
    lines = lab.path.read_text().splitlines()
    assert "command:" in lines[problem.line - 1]
    assert problem.key == "workloads.mine.command"
    assert problem.what.endswith("not found in the guest")
    assert hint in problem.hint


def test_guests_of_virtme_ng_have_the_programs_of_the_host(planned):
    early.check_commands(*planned(f"{sys.executable} -c pass", launcher="virtme-ng"))
    early.check_commands(*planned("freebench", launcher="virtme-ng"))


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("./mybench", "./mybench not found"),
        ("no-such-program", "not found on the host"),
        ("/no/such/program", "not found on the host"),
        ("/etc/passwd", "not found on the host"),  # not executable
    ],
)
def test_a_command_that_the_host_does_not_have_is_reported(planned, command, what):
    lab, plans = planned(command, launcher="virtme-ng")
    assert what in problem_of(early.check_commands, lab, plans).what


def test_a_missing_shared_library_is_named(planned, tmp_path):
    (tmp_path / "used.c").write_text("int used(void) { return 0; }\n")
    (tmp_path / "main.c").write_text("int used(void); int main(void) { return used(); }\n")
    library, program = tmp_path / "libused.so", tmp_path / "mybench"
    for words in (
        ["-shared", "-o", library, "used.c"],
        ["-o", program, "main.c", f"-L{tmp_path}", "-lused", f"-Wl,-rpath,{tmp_path}"],
    ):
        subprocess.run(["gcc", *words], cwd=tmp_path, check=True)
    arguments = planned(f"{program} --size 1GiB", launcher="virtme-ng")
    early.check_commands(*arguments)
    library.unlink()
    problem = problem_of(early.check_commands, *arguments)
    assert problem.what == f"{program}: shared libraries not found: libused.so"


class Target:
    """A target with these commands."""

    name = "box"

    def __init__(self, *commands):
        self.commands = commands
        self.scripts = []

    def run(self, command, *, timeout_seconds):
        self.scripts.append(command)
        found = any(f"-- {name} " in command for name in self.commands)
        status = 0 if found else 127
        return Outcome(command, status=status, stdout=b"", stderr=b"", seconds=0.1)


def test_the_commands_of_a_target_are_its_own(planned):
    def check(target, command):
        lab, plans = planned(command)
        early.check_commands_of(target, lab, plans, early.supplies_of_target(lab, plans))

    check(Target("mybench"), "mybench -x")
    lab_programs = Target()
    check(lab_programs, "freebench")
    assert lab_programs.scripts == []
    problem = problem_of(check, Target(), "mybench -x")
    assert problem.what == "mybench not found on target box"


def test_too_little_free_memory_is_reported(planned):
    lab, plans = planned("freebench")
    facts = read_facts()
    early.check_memory(lab, plans, replace(facts, available_bytes=2 * 2**30, nodes=()))
    with pytest.raises(HostError, match="needs 2 GiB for its 2 guests, but only 1 GiB are free"):
        early.check_memory(lab, plans, replace(facts, available_bytes=2**30, nodes=()))


def test_a_run_with_a_wrong_command_reads_no_source_and_builds_nothing(planned):
    lab, _ = planned("./mybench")
    words = [sys.executable, "-m", "labctl", "run", "one"]
    done = subprocess.run(words, cwd=lab.root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "workloads.mine.command: ./mybench not found" in done.stderr
    assert not (lab.state / "sources").exists()
    assert not (lab.state / "trees").exists()


def test_the_applets_are_those_of_the_hosts_busybox():
    assert {"sh", "timeout"} <= {*busybox.applets(busybox.find(X86_64))}


def test_up_looks_for_files_only_if_a_workload_may_bring_some(planned):
    lab, _ = planned("freebench")
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from labctl.arch import X86_64\nfrom labctl.cli import guests\n"
        "from labctl.lab.load import load\n"
        "assert guests._brought(load(Path(sys.argv[1])), X86_64) == ({}, {})\n"
        "print(*(name for name in sys.modules if name.startswith('labctl.workloads')))\n"
    )
    words = [sys.executable, "-c", program, lab.path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")
