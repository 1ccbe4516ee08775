"""What a QEMU process may do, and who can reach it."""

import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from labctl.doctor import running
from labctl.errors import BootFailed, GuestLost
from labctl.guests import box, endings, launchers
from labctl.guests.guest import Guest
from labctl.guests.qemu import GuestSpec
from labctl.host import identity, sandbox
from labctl.kernels.build import Image
from labctl.lab.limits import GuestLimits
from labctl.lab.topology import Topology
from labctl.reports import words as report_words
from labctl.runs.types import Host
from labctl.status import GuestFault


@pytest.fixture
def process():
    with subprocess.Popen(["sleep", "60"]) as found:
        yield found
        found.kill()


def limits_of(pid):
    return resource.prlimit(pid, resource.RLIMIT_CORE), resource.prlimit(
        pid, resource.RLIMIT_NOFILE
    )


def test_a_process_gets_the_limits_and_labctl_keeps_its_own(process):
    before = limits_of(0)
    box.limit(process.pid)
    assert limits_of(process.pid) == ((0, 0), (box.OPEN_FILES, box.OPEN_FILES))
    assert limits_of(0) == before
    score = Path(f"/proc/{process.pid}/oom_score_adj")
    assert int(score.read_text()) == box.OOM_SCORE


def test_a_server_of_files_may_open_many(process):
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    box.limit(process.pid, serves_files=True)
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == before
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)


def test_lower_limits_stay(process):
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (100, 100))
    Path(f"/proc/{process.pid}/oom_score_adj").write_text("900")
    box.limit(process.pid)
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (100, 100)
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "900"


def test_a_process_that_has_ended_is_no_error(process):
    process.kill()
    process.wait(10)
    box.limit(process.pid)


@pytest.mark.parametrize("transport", ["serial", "ssh"])
def test_a_guest_listens_on_the_loopback_alone(tmp_path, transport):
    image = Image("stock", Path("bz"), "1", "0", None, (), Path("config"), "6.1", "gcc")
    spec = GuestSpec("stock", image, Topology(), tmp_path / "initrd", "tcg", tmp_path)
    if transport == "ssh":
        spec = replace(spec, transport="ssh", ssh_key=tmp_path / "key")
    words = launchers.command(spec)
    text = " ".join(words)
    assert "-nodefaults" in words
    addresses = re.findall(r"(?:tcp|udp|vnc|telnet):([^:]*):", text)
    assert addresses == (["127.0.0.1"] if transport == "ssh" else [])
    assert all("path=" in word for word in words if word.startswith("socket,"))
    assert not {"-vnc", "-spice", "-gdb", "-s", "-qmp"} & set(words)
    assert transport == "serial" or "restrict=on" in text


# --- the sandbox ---------------------------------------------------------------------------------

DENIED = {"obsolete", "elevateprivileges", "spawn", "resourcecontrol"}


@pytest.fixture
def qemu(tmp_path, monkeypatch):
    """Return a function that puts a QEMU on PATH, as a shell script."""

    def write(script):
        program = tmp_path / "qemu-system-x86_64"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return program.name

    return write


WITHOUT = 'echo "q: -sandbox support is not enabled in this QEMU binary" >&2; exit 1'


@pytest.mark.parametrize("launcher", ["qemu", "virtme-ng"])
@pytest.mark.parametrize("user_words", [(), ("-device", "virtio-rng-pci")])
def test_qemu_is_started_in_its_sandbox_without_default_devices(tmp_path, launcher, user_words):
    image = Image("stock", Path("bz"), "1", "0", None, (), Path("config"), "6.1", "gcc")
    topology = Topology(qemu=user_words)
    spec = GuestSpec("k", image, topology, tmp_path / "i", "tcg", tmp_path, launcher=launcher)
    words = launchers.command(spec)
    if launcher != "qemu":
        (more,) = [word for word in words if word.startswith("--qemu-opts=")]
        words = shlex.split(more.partition("=")[2])
    assert words.count("-sandbox") == 1
    first, *denied = words[words.index("-sandbox") + 1].split(",")
    assert (first, set(denied)) == ("on", {f"{each}=deny" for each in DENIED})
    assert "-nodefaults" in words


def test_a_qemu_without_seccomp_is_started_without_its_sandbox(qemu):
    program = qemu(WITHOUT)
    words = [program, "-name", "x", *sandbox.ARGUMENTS, "-nodefaults"]
    assert sandbox.missing(program) == f"{program} was built without seccomp"
    assert sandbox.kept(words) == [program, "-name", "x", "-nodefaults"]


@pytest.mark.parametrize(
    "script", ["echo QEMU", "exec sleep 60", "exit 1", "echo no disk >&2; exit 1"]
)
def test_no_other_fault_of_qemu_takes_the_sandbox_away(qemu, monkeypatch, script):
    monkeypatch.setattr(sandbox, "_SECONDS", 0.1)
    words = [qemu(script), *sandbox.ARGUMENTS]
    assert sandbox.kept(words) == words


def test_a_missing_qemu_is_the_matter_of_who_starts_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.kept(["qemu-x", *sandbox.ARGUMENTS]) == ["qemu-x", *sandbox.ARGUMENTS]


def test_a_kernel_without_seccomp_has_no_sandbox(tmp_path, qemu):
    words = [qemu("echo QEMU"), *sandbox.ARGUMENTS]
    assert sandbox.kept(words, tmp_path / "actions_avail") == words[:1]


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="no QEMU")
def test_the_qemu_of_this_host_takes_the_filter():
    program = "qemu-system-x86_64"
    if sandbox.missing(program):
        pytest.skip(sandbox.missing(program))
    # `-cpu help` is answered after the filter was installed.
    words = [program, *sandbox.ARGUMENTS, "-machine", "none", "-cpu", "help"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_the_doctor_says_what_protects_the_host():
    found = running.isolation("", has_landlock=True, as_root=False)
    assert (found.status, "its guest's files only" in found.what) == ("ok", True)
    found = running.isolation("", has_landlock=False, as_root=True)
    assert "no Landlock" in found.what
    assert "runs as root" in found.what
    found = running.isolation("qemu was built without seccomp", has_landlock=True, as_root=False)
    assert (found.status, "without QEMU's sandbox" in found.what) == ("warn", True)


def test_a_run_records_what_qemu_may_do(qemu, monkeypatch):
    qemu(f'case "$*" in *-sandbox*) {WITHOUT};; esac; echo QEMU emulator version 8.2.0')
    monkeypatch.setattr("os.geteuid", lambda: 0)
    facts = msgspec.convert(identity.describe().as_dict(), Host)
    assert report_words.host(facts).count("QEMU 8.2.0 as root without its sandbox") == 1


def test_a_denied_system_call_is_named():
    found = endings.of_qemu(-signal.SIGSYS, "", [])
    assert (found.fault, "sandbox" in (found.hint or "")) == (GuestFault.QEMU_CRASHED, True)
    assert -signal.SIGSYS not in endings.CRASHES  # such a QEMU is not started again


# --- files of QEMU -------------------------------------------------------------------------------

FLOOD = """case "$*" in *--version*) exit;; esac
exec {python} -IS -c '
import os, time
log = os.open("console.log", os.O_WRONLY | os.O_CREAT)
os.write(log, b"[    1.0] labctl: node 0 cpus=0 memory_kib=1572480 distances=10\\n")
os.write(log, b"[    1.0] labctl: ready boot=0a1b2c3d-0000-4000-8000-0123456789ab\\n")
while not os.path.exists("flood"):
    time.sleep(0.02)
try:
    while True:
        os.write(log, b"x" * 65536)
except OSError as error:
    os.write(1, error.strerror.encode())
open("ended", "x")
for _ in range(600):
    time.sleep(0.1)
'
"""


def test_the_console_of_a_guest_that_does_not_get_ready_ends_at_its_limit(qemu, tmp_path):
    script = FLOOD.format(python=sys.executable).replace("labctl: ready boot", "no boot")
    qemu(script)
    image = Image("stock", tmp_path / "bz", "1", "0", None, (), None, "6.1", "gcc")
    spec = GuestSpec("k", image, Topology(nodes=1), tmp_path / "i", "tcg", tmp_path / "g")
    spec = replace(spec, limits=GuestLimits(console="1MiB"))
    with Guest(spec) as guest, ThreadPoolExecutor(1) as pool:
        ready = pool.submit(guest.wait_ready, 60)
        pid = guest._watchdog.machine.pid
        while resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] > spec.limits.console:
            assert not ready.done()
        (spec.folder / "flood").touch()
        with pytest.raises(BootFailed, match="console log is larger than 1 MiB"):
            ready.result(60)
    assert guest.log.stat().st_size == spec.limits.console


def test_the_console_of_a_guest_that_nobody_watches_ends_at_its_limit(qemu, tmp_path):
    qemu(FLOOD.format(python=sys.executable))
    image = Image("stock", tmp_path / "bz", "1", "0", None, (), None, "6.1", "gcc")
    limits = GuestLimits(console="1MiB")
    spec = GuestSpec("k", image, Topology(nodes=1), tmp_path / "i", "tcg", tmp_path / "g")
    spec = replace(spec, limits=limits)
    with Guest(spec) as guest:
        while guest.console.boot_id is None:
            guest.check()
        box.limit_guest(guest._watchdog.machine.pid, spec, is_started=True)
        (spec.folder / "flood").touch()
        while not (spec.folder / "ended").exists():
            assert guest._watchdog.machine.poll() is None
        assert guest.log.stat().st_size == limits.console
        assert (spec.folder / "qemu.log").read_text() == "File too large"
        assert guest._watchdog.machine.poll() is None  # the guest itself goes on
        with pytest.raises(GuestLost, match="console log is larger than 1 MiB"):
            guest.check()


@pytest.mark.parametrize(
    ("topology", "ready_bytes"),
    [
        (Topology(nodes=1), 64 << 20),
        (Topology(nodes=1, hugepages="2MiB"), 64 << 20),
        (Topology(nodes=1, disks=["1GiB", "128MiB"]), 1 << 30),
        (Topology(nodes=1, qemu=("-device", "x")), resource.RLIM_INFINITY),
    ],
)
def test_files_that_a_guest_writes_are_limited(process, tmp_path, topology, ready_bytes):
    image = Image("stock", Path("bz"), "1", "0", None, (), None, "6.1", "gcc")
    spec = GuestSpec("k", image, topology, tmp_path / "i", "tcg", tmp_path)
    box.limit_guest(process.pid, spec)
    size = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[0]
    # Hugepages of the guest are a file as well.
    assert size == ready_bytes if not topology.hugepages else size > topology.memory_bytes
    box.limit_guest(process.pid, spec, is_started=True)
    assert resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[0] == ready_bytes
