"""The contract of all transports, tested with guests of each launcher.

For a new transport or launcher, add a line to WAYS.
"""

import contextlib
import hashlib
import os
import signal
import time
from pathlib import Path

import pytest
from conftest import KCONFIG, ROOT
from program import BOOT_SECONDS

from labctl.errors import DeadlineExceeded, GuestError, GuestHung, GuestLost, GuestPanic, UserError
from labctl.guests.guest import Guest, State
from labctl.guests.prepare import prepare
from labctl.host import landlock
from labctl.lab.load import load

# Keys of `defaults:` in lab.yaml.
WAYS = {
    "qemu-serial": "launcher: qemu, transport: serial",
    "qemu-ssh": "launcher: qemu, transport: ssh",
    "virtme-ng-serial": "launcher: virtme-ng, transport: serial",
    "virtme-ng-ssh": "launcher: virtme-ng, transport: ssh",
}
LAB = """\
version: 1
state: {root}/.labctl
defaults: {{accel: auto, guest: small, {way}}}
guests:
  small: {{nodes: 1, cpus_per_node: 2, memory_per_node: 512MiB}}
kernels:
  stock: {{source: debian:linux-source-6.1, kconfig: {kconfig}}}
"""
TEN_MEGABYTES = 10 * 2**20


@pytest.fixture(scope="module", params=WAYS)
def guest(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    text = LAB.format(root=ROOT, way=WAYS[request.param], kconfig=KCONFIG)
    (folder / "lab.yaml").write_text(text)
    prepared = prepare(load(folder / "lab.yaml"), ["stock"], lambda _: None)
    topology = prepared.lab.guests["small"]
    spec = prepared.spec("stock", name="stock", folder=folder / "guest", topology=topology)
    with Guest(spec) as guest:
        guest.wait_ready(BOOT_SECONDS)
        yield guest


def hang_up(guest, silence_seconds):
    """Close the guest's transport; it is reopened with another silence deadline."""
    if guest._line is not None:  # the first test of a process has opened none
        guest._line.close()
    guest._line = None
    guest.silence_seconds = silence_seconds


def listening(pid):
    """Return the addresses, in hex as in /proc, on which a process accepts TCP or any UDP."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            links.append(str(descriptor.readlink()))
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links}
    found = []
    for family in ("tcp", "tcp6", "udp", "udp6"):
        rows = Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]
        # Fields: number, local address, remote address, state (0A listens), …, inode.
        fields = [row.split() for row in rows]
        mine = [each for each in fields if each[9] in inodes]
        found += [each[1] for each in mine if each[3] == "0A" or family.startswith("udp")]
    return found


def test_qemu_listens_on_the_loopback_alone(guest):
    found = listening(guest._watchdog.machine.pid)
    assert len(found) == (1 if guest.spec.transport == "ssh" else 0)
    assert all(address.startswith("0100007F:") for address in found), found


def test_qemu_runs_in_its_sandbox(guest):
    status = Path(f"/proc/{guest._watchdog.machine.pid}/status").read_text()
    assert "\nSeccomp:\t2\n" in status  # a filter
    assert "\nNoNewPrivs:\t1\n" in status


@pytest.mark.skipif(not landlock.version(), reason="the host's kernel has no Landlock")
def test_qemu_uses_the_files_of_its_guest_only(guest, tmp_path):
    """QEMU itself is asked for others, as by a guest that has broken into it."""
    if guest.spec.launcher != "qemu":
        pytest.skip("virtme-ng serves the files of the host")
    memory = {"val": 0, "size": 4096}
    guest.qmp("pmemsave", {**memory, "filename": "memory"})
    inside = guest.spec.folder / "memory"
    assert inside.stat().st_size == 4096
    inside.unlink()
    outside = tmp_path / "outside"
    with pytest.raises(GuestLost, match="Permission denied"):
        guest.qmp("pmemsave", {**memory, "filename": str(outside)})
    assert not outside.exists()
    outside.write_bytes(bytes(512))
    disk = {"driver": "file", "node-name": "outside", "filename": str(outside), "read-only": True}
    with pytest.raises(GuestLost, match="Permission denied"):
        guest.qmp("blockdev-add", disk)


@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 255])
def test_the_exit_status_is_exact(guest, status):
    assert guest.run(f"exit {status}", timeout_seconds=60).status == status
    assert guest.run(["sh", "-c", f"exit {status}"], timeout_seconds=60).status == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGINT])
def test_a_signal_is_reported_as_by_a_shell(guest, number):
    outcome = guest.run(["sh", "-c", f"kill -{int(number)} $$"], timeout_seconds=60)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (128 + number, b"", b"")


def test_a_missing_program_is_127_and_named(guest):
    outcome = guest.run(["no-such-program"], timeout_seconds=60)
    assert outcome.status == 127
    assert b"no-such-program" in outcome.stderr


def test_both_streams_are_exact_and_apart(guest):
    every = bytes(range(256)) * 400
    outcome = guest.run("cat; cat /bin/sh | head -c 5000 >&2", stdin=every, timeout_seconds=60)
    assert outcome.stdout == every
    assert outcome.stderr == guest.run(["head", "-c", "5000", "/bin/sh"], timeout_seconds=60).stdout


def test_words_arrive_as_they_are(guest):
    words = ["a b", "", "$HOME", "'\"\\", "ü", "*", "-n", "new\nline", "\udcff"]
    outcome = guest.run(["printf", "%s|", *words], timeout_seconds=60)
    assert outcome.stdout == b"".join(os.fsencode(word) + b"|" for word in words)


def test_a_long_command_arrives(guest):
    words = ["printf", "%s", *(f"word {n} of it's many;" for n in range(1000))]
    outcome = guest.run(words, stdin=b"unread", timeout_seconds=60)
    assert outcome.text == "".join(words[2:])


def test_the_environment_is_the_same_everywhere(guest):
    result = dict(
        line.split("=", 1) for line in guest.run("env", timeout_seconds=60).text.splitlines()
    )
    assert (result["HOME"], result["USER"], result["LC_ALL"]) == ("/root", "root", "C")
    assert {"/bin", "/sbin"} <= set(result["PATH"].split(":"))
    assert guest.run(["freebench", "--help"], timeout_seconds=60).status != 127


def test_kernel_messages_cut_no_output(guest):
    script = "for i in $(seq 0 99); do echo line $i; echo noise $i >/dev/kmsg; done"
    outcome = guest.run(script, timeout_seconds=120)
    assert outcome.text.splitlines() == [f"line {i}" for i in range(100)]


def test_ten_megabytes_arrive_whole(guest):
    script = f"yes 0123456789abcde | head -c {TEN_MEGABYTES}; echo end >&2"
    outcome = guest.run(script, timeout_seconds=300)
    assert outcome.stdout == b"0123456789abcde\n" * (TEN_MEGABYTES // 16)
    assert outcome.stderr == b"end\n"


def test_input_is_complete_or_ignored(guest):
    data = os.urandom(100_000)
    outcome = guest.run(["md5sum"], stdin=data, timeout_seconds=120)
    assert outcome.text.split()[0] == hashlib.md5(data).hexdigest()
    assert guest.run("exec <&-; echo on", stdin=data, timeout_seconds=120).stdout == b"on\n"
    assert guest.run(["wc", "-c"], timeout_seconds=60).text.strip() == "0"


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_files_go_both_ways_and_keep_their_executable_bit(guest, tmp_path, mode):
    content = os.urandom(100_000)
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "file").chmod(mode)
    guest.put(tmp_path / "file", "/tmp/it's a file")
    assert guest.get("/tmp/it's a file") == content
    runs = guest.run(["test", "-x", "/tmp/it's a file"], timeout_seconds=60).status == 0
    assert runs == (mode == 0o755)


def test_a_file_is_put_whole_or_not_at_all(guest, tmp_path):
    small = (
        "mkdir -p /tmp/small; mount -t tmpfs -o size=64k tmpfs /tmp/small; echo old >/tmp/small/f"
    )
    assert guest.run(small, timeout_seconds=60).status == 0
    (tmp_path / "large").write_bytes(os.urandom(100_000))
    with pytest.raises(GuestError, match="cannot write /tmp/small/f"):
        guest.put(tmp_path / "large", "/tmp/small/f")
    assert guest.get("/tmp/small/f") == b"old\n"
    guest.run("umount /tmp/small", timeout_seconds=60)
    with pytest.raises(UserError):
        guest.put(tmp_path / "none", "/tmp/none")
    hang_up(guest, guest.silence_seconds)


def test_a_file_that_is_not_there_cannot_be_read(guest):
    with pytest.raises(GuestError, match="cannot read /nowhere"):
        guest.get("/nowhere")


def test_a_command_that_takes_too_long_is_killed_with_all_it_started(guest):
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        guest.run("sleep 1001 & echo begun; sleep 1000", timeout_seconds=2)
    assert time.monotonic() - began < 30
    assert guest.state is State.READY
    assert guest.run("pidof sleep", timeout_seconds=60).status == 1


def test_a_command_that_floods_is_ended_in_time(guest):
    with pytest.raises(DeadlineExceeded):
        guest.run("yes", timeout_seconds=2)
    assert guest.run("pidof yes; echo well", timeout_seconds=60).text == "well\n"


def test_leftover_processes_of_a_command_are_killed_and_do_not_delay_it(guest):
    began = time.monotonic()
    assert guest.run("sleep 1000 & echo done", timeout_seconds=60).stdout == b"done\n"
    assert time.monotonic() - began < 30
    assert guest.run("pidof sleep", timeout_seconds=60).status == 1


def test_many_commands_in_a_row(guest, request):
    # A program of virtme-ng's guest is read from the host's files, a second under emulation.
    is_slow = "virtme" in request.node.name and not request.config.getoption("--long")
    for n in range(40 if is_slow else 200):
        outcome = guest.run(["echo", str(n)], timeout_seconds=60)
        assert (outcome.status, outcome.text) == (0, f"{n}\n")


def test_the_time_of_a_command_is_the_guests_own(guest):
    assert 0.9 <= guest.run(["sleep", "1"], timeout_seconds=60).seconds < 30


def test_a_busy_guest_is_not_reported_as_hung(guest):
    hang_up(guest, silence_seconds=5.0)
    assert guest.run("sleep 6", timeout_seconds=60).status == 0
    guest.qmp("stop")  # behind the guest's back
    with pytest.raises(GuestHung):
        guest.run("echo never", timeout_seconds=100)
    assert guest.state is State.HUNG
    guest.qmp("cont")
    hang_up(guest, silence_seconds=60.0)
    assert guest.run(["echo", "back"], timeout_seconds=60).text == "back\n"


# The last test, since it ends the guest.
def test_a_guest_that_dies_in_the_middle_is_reported_with_its_cause(guest):
    began = time.monotonic()
    with pytest.raises(GuestPanic, match="sysrq") as caught:
        guest.run("sleep 1; echo c >/proc/sysrq-trigger; sleep 1000", timeout_seconds=200)
    assert time.monotonic() - began < 40
    assert any("Kernel panic - not syncing" in line for line in caught.value.console_tail)
