"""Scripts, environment, setup and teardown of a workload."""

import subprocess

import pytest
from synthetic import FACTS, World, lab

from labctl.errors import ConfigError
from labctl.experiments.plan import plan
from labctl.experiments.runner import Runner
from labctl.lab.load import load
from labctl.lab.metrics import is_freebench
from labctl.lab.models import Workload
from labctl.lab.workload_entry import Steps
from labctl.runs.store import Store
from labctl.transports import Outcome
from labctl.workloads.supply import NOTHING, Supply

HEAD = """\
kernels: {stock: {source: "debian:linux-source-6.1"}}
workloads:
"""


@pytest.fixture
def loaded(tmp_path):
    def write(text):
        path = tmp_path / "lab.yaml"
        path.write_text(HEAD + text)
        return load(path).workloads["w"]

    return write


def run(argv):
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_an_inline_script_gets_the_parameters_and_the_environment(loaded):
    text = "  w:\n    env: {MODE: 4}\n    parameters: {free_all: 1}\n    script: |\n"
    mine = loaded(text + '      echo "elapsed: $MODE s $1=$2"\n')
    done = run(NOTHING.argv(mine.argv(), mine.env))
    assert done.stdout == "elapsed: 4 s --free-all=1\n"


def test_a_script_ends_at_its_first_failure(loaded):
    mine = loaded("  w:\n    script: |\n      false\n      echo unreachable\n")
    done = run(NOTHING.argv(mine.argv()))
    assert (done.returncode, done.stdout) == (1, "")


def test_a_script_that_runs_freebench_has_its_metrics(loaded):
    assert is_freebench(loaded("  w: {script: freebench --op free}\n").command)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("  w: {command: a, script: b}\n", "workloads.w.script: conflicts with `command:`"),
        ("  w: {timeout: 1min}\n", "expected `use:`, `command:`, `script:` or `build:`, got none"),
        ("  w: {command: a, env: {2X: 1}}\n", "workloads.w.env"),
        ("  w: {command: a, setup: {bot: x}}\n", "did you mean boot"),
    ],
)
def test_wrong_keys_are_reported(loaded, text, what):
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    assert len(caught.value.problems) == 1
    assert what in str(caught.value)


def test_scripts_run_in_the_folder_of_the_files(tmp_path):
    supply = Supply(folder=str(tmp_path), environment={"A": "1", "B": "2"})
    done = run(supply.script("pwd; echo $A $B", {"B": "3"}))
    assert done.stdout == f"{tmp_path}\n1 3\n"


@pytest.fixture
def measured(tmp_path):
    """Return a function that measures with steps, and gives samples and what guests ran."""

    def measure(fails=None, **keys):
        it = lab(blocks=2, repetitions=2)
        mine = Workload(name="free", command="freebench", **keys)
        it = it.model_copy(update={"workloads": {"free": mine}})
        world, ran = World(), []

        def boot(group, block):
            return Watched(world.boot(group, block), ran, fails)

        runner = Runner(
            lab=it,
            plan=plan(it, "e", 1),
            store=Store(tmp_path),
            boot=boot,
            facts=FACTS,
            clock=world.clock,
            load=world.load,
        )
        runner.run()
        return runner.store.samples(), ran

    return measure


class Watched:
    """A synthetic guest that notes its scripts, one of which may fail."""

    def __init__(self, booted, ran, fails):
        self.booted, self.ran, self.fails = booted, ran, fails

    def __enter__(self):
        self.guest = self.booted.__enter__()
        return self

    def __exit__(self, *error):
        return self.booted.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.guest, name)

    def run(self, argv, *, timeout_seconds, stdin=b""):
        if argv[0] != "/bin/sh":
            self.ran.append((self.boot_id, "command"))
            return self.guest.run(argv, timeout_seconds=timeout_seconds)
        script = argv[2]
        self.ran.append((self.boot_id, script))
        status = 3 if self.fails == (self.guest.group.kernel, script) else 0
        return Outcome(script, status, b"", b"no space left\n" if status else b"", 0.1)


STEPS = {
    "setup": Steps(boot="mount", repetition="fill"),
    "teardown": Steps(boot="unmount", repetition="empty"),
}


def test_scripts_run_per_boot_and_per_repetition(measured):
    samples, ran = measured(**STEPS)
    assert {sample.status for sample in samples} == {"ok"}
    for boot in {boot for boot, _ in ran}:
        mine = [what for one, what in ran if one == boot]
        assert (mine[0], mine[-1]) == ("mount", "unmount")
        inner = mine[1:-1]
        assert inner == ["fill", "command", "empty"] * (len(inner) // 3)


@pytest.mark.parametrize(
    ("script", "key"),
    [
        ("mount", "setup: boot:"),
        ("fill", "setup: repetition:"),
        ("empty", "teardown: repetition:"),
        ("unmount", "teardown: boot:"),
    ],
)
def test_a_failed_script_is_a_failed_sample_with_its_words(measured, script, key):
    samples, ran = measured(fails=("patched", script), **STEPS)
    mine = [sample for sample in samples if sample.kernel == "patched"]
    assert {s.status for s in samples if s.kernel == "stock"} == {"ok"}
    failed = [sample for sample in mine if sample.status == "bad-output"]
    assert failed
    assert failed[0].message.startswith(f"{key} exited with status 3: no space left")
    if script == "mount":
        assert {sample.status for sample in mine} == {"bad-output", "skipped"}
    if script == "fill":
        boot = mine[0].boot_id
        assert ("command" not in [what for one, what in ran if one == boot]) or not boot
        assert (boot, "empty") in ran
        assert (boot, "unmount") in ran
