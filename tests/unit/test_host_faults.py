"""Faults of the host, injected for real: full disks, the OOM killer, clocks that jump."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import faketree
import pytest
from control_groups import real_control_groups
from test_full_disk import on_a_small_disk
from test_guest_folder import spec  # noqa: F401 - a fixture

from labctl.errors import BootFailed
from labctl.guests.guest import Guest

HERE = Path(__file__).parent
HOUR = 3600

BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import faketree
from labctl import cli
from labctl.kernels.build import Builder
place = Path(sys.argv[1])
tree, config = Path(sys.argv[3]), Path(sys.argv[4])
kernel = faketree.kernel("k", f"dir:{tree}", kconfig=(config,))
cli._quietly(lambda: Builder(place, lambda _: None).image(kernel))
"""


@pytest.fixture
def tree(tmp_path):
    """A source of 1 MiB; so is its object, and its image."""
    found = faketree.write(tmp_path / "mine")
    with (found / "mm/memory.c").open("a") as source:
        source.write("// filler\n" * (1 << 17))
    return found


@pytest.fixture
def words(tmp_path, tree):
    return [str(HERE), str(tree), str(faketree.fragment(tmp_path / "base.config"))]


@pytest.mark.parametrize("kib", [1800, 3300])
def test_a_build_on_a_full_disk_is_the_hosts_fault(tmp_path, words, kib):
    (tmp_path / "small").mkdir()
    done = on_a_small_disk(tmp_path / "small", kib, BUILD, *words)
    assert done.returncode == 3, done.stderr
    assert str(tmp_path / "small") in done.stderr
    assert "No space left on device" in done.stderr or "the disk is full" in done.stderr


GREEDY = "import sys; x = bytearray(1 << 30)"


def test_a_compiler_that_the_real_oom_killer_takes_is_named(tmp_path, tree, words):
    with (tree / "scripts/cc.sh").open("a") as script:
        script.write(f"[ $source != mm/memory.c ] || {sys.executable} -c '{GREEDY}'\n")
    with real_control_groups(memory=128 << 20) as groups:
        enter = f'echo $$ > {groups["memory"]}/cgroup.procs; exec "$@"'
        argv = [sys.executable, "-c", BUILD, str(tmp_path / "state"), *words]
        done = subprocess.run(
            ["sh", "-c", enter, "sh", *argv], capture_output=True, text=True, timeout=100
        )
    if done.returncode == 0:
        pytest.skip("the host swaps, or does not enforce the limit")
    assert done.returncode == 3, done.stderr
    assert "a compiler was killed, possibly by the OOM killer" in done.stderr


BOOT = """
import sys
from dataclasses import replace
from pathlib import Path
from labctl import cli
from labctl.guests.guest import Guest
from labctl.guests.qemu import GuestSpec
from labctl.kernels.build import Image
from labctl.lab.topology import Topology
place = Path(sys.argv[1])
image = Image("k", place / "bzImage", "0" * 32, "0", None, (), None, "6.1", "")
spec = GuestSpec("k", image, Topology(), place / "initramfs", "tcg", place / "guest")
def boot():
    with Guest(spec) as guest:
        guest.wait_ready(60)
cli._quietly(boot)
"""
# QEMU drops what it cannot write.
FILLING = """\
#!/bin/sh
case "$*" in *console.log*) ;; *) exit;; esac
yes "[    1.0] a line of the kernel" > console.log
{then}
"""


@pytest.mark.parametrize("then", ["exit 1", "exec sleep 600"])
def test_a_console_on_a_full_disk_is_the_hosts_fault(tmp_path, monkeypatch, then):
    (tmp_path / "bin").mkdir()
    (tmp_path / "small").mkdir()
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.write_text(FILLING.format(then=then))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    boot = BOOT if then == "exit 1" else BOOT.replace("wait_ready(60)", "wait_ready(1)")
    done = on_a_small_disk(tmp_path / "small", 512, boot)
    assert done.returncode == 3, done.stderr
    assert "disk full: QEMU cannot write the guest's console" in done.stderr
    assert f"{tmp_path}/small/guest" in done.stderr


def test_a_real_qemu_that_gets_no_memory_is_the_hosts_fault(spec, tmp_path):  # noqa: F811
    qemu = shutil.which("qemu-system-x86_64", path="/usr/bin:/bin")
    if qemu is None:
        pytest.skip("no QEMU")
    memory = "-machine none -nodefaults -display none -object memory-backend-ram,id=m,size=1T"
    (tmp_path / "bin" / "qemu-system-x86_64").write_text(
        f"#!/bin/sh\nulimit -v {4 << 20}; exec {qemu} {memory},prealloc=off\n"
    )
    with Guest(spec) as guest, pytest.raises(BootFailed) as caught:
        guest.wait_ready(60)
    assert caught.value.fault == "host-oom"
    assert "Cannot allocate memory" in caught.value.what


# --- clocks --------------------------------------------------------------------------------------

RUN = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from synthetic import World, lab
from test_runner import runner
from labctl.experiments.description import RunClock
from labctl.host.load import suspended_seconds
from labctl.runs.store import Store

class Jumping(World):
    count = 0

    def load(self):
        return super().load() | {"suspended_seconds": suspended_seconds()}

    def jump(self, guest):
        self.count += 1
        if self.count == 17:  # one of three repetitions
            Path(os.environ["CLOCKS"]).write_text(sys.argv[2])

world = Jumping()
world.on_run = world.jump
runner(Path(sys.argv[3]), world, lab(blocks=6, repetitions=3)).run()
samples = Store(Path(sys.argv[3])).samples()
names = ("block", "disturbed", "started_at", "status")
print(json.dumps([{name: getattr(one, name) for name in names} for one in samples], default=str))
"""


@pytest.fixture
def run_with(tmp_path):
    """Return a function that runs an experiment during which the clocks of the host jump."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    library = tmp_path / "clocks.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", library, HERE / "clocks.c"], check=True)

    def run(ahead):
        env = os.environ | {"LD_PRELOAD": str(library), "CLOCKS": str(tmp_path / "clocks")}
        (tmp_path / "run").mkdir()
        argv = [sys.executable, "-c", RUN, str(HERE), ahead, str(tmp_path / "run")]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_host_that_sleeps_in_the_middle_of_a_run(run_with):
    """After a sleep, the clocks of the day and of the boot are ahead, the monotonic one is not."""
    samples = run_with(f"{HOUR} {HOUR}")
    (marked,) = [one for one in samples if one["disturbed"]]
    assert marked["disturbed"].startswith("the host was suspended for 36")
    assert sorted({one["block"] for one in samples}) == list(range(7))
    assert {one["status"] for one in samples} == {"ok"}


def test_a_clock_that_is_set_back_in_the_middle_of_a_run_changes_nothing(run_with):
    samples = run_with(f"{-HOUR} 0")
    times = [one["started_at"] for one in samples]
    assert times == sorted(times)
    assert not any(one["disturbed"] for one in samples)
    assert sorted({one["block"] for one in samples}) == list(range(6))
