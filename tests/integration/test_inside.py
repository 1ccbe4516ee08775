"""Guests reached by SSH: up, ssh, exec, gdb, and a run over SSH."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import termios
import time

import pytest

SSH_SECONDS = 120.0


@pytest.fixture
def ssh_lab(labctl):
    """The small lab with `transport: ssh` and gdb's options in its kernels."""
    text = (labctl.folder / "lab.yaml").read_text()
    text = text.replace("guest: small", "guest: small, transport: ssh")
    (labctl.folder / "lab.yaml").write_text(text)
    return labctl


def on_a_terminal(labctl, *words):
    """Start labctl on a new terminal; return it and both ends of the terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        labctl.argv(*words),
        cwd=labctl.folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(slave), os.O_RDWR)),
    )
    return process, master, slave


def read_until(master, text):
    seen, deadline = "", time.monotonic() + SSH_SECONDS
    while text not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([master], [], [], 1.0)[0]:
            seen += os.read(master, 65536).decode(errors="replace")
    return seen


@pytest.mark.timeout(2700)  # the kernel may have to be built
def test_a_guest_that_is_reached_by_ssh(ssh_lab):
    assert ssh_lab("up", "stock").returncode == 0
    (pid,) = ssh_lab.guests_running()
    guest = ssh_lab.folder / ".labctl/guests/stock"

    # Only the owner can read the lab's key.
    key = ssh_lab.folder / ".labctl/ssh/id_ed25519"
    assert key.stat().st_mode & 0o777 == 0o600

    # exec, and OpenSSH's client.
    done = ssh_lab("exec", "stock", "uname -r; exit 3", check=False)
    assert (done.returncode, done.stdout.startswith("6.1.")) == (3, True)
    done = ssh_lab("ssh", "stock", "--", "echo", "two  words", check=False)
    assert (done.returncode, done.stdout) == (0, "two  words\n"), done.stderr
    assert ssh_lab("ssh", "stock", "exit 7", check=False).returncode == 7

    # up again changes nothing.
    again = ssh_lab("up", "stock")
    assert "unchanged" in again.stderr
    assert ssh_lab.guests_running() == [pid]

    _has_no_way_out(ssh_lab)
    _has_a_session(ssh_lab)
    _lets_gdb_look_in(ssh_lab)

    # A host key that differs from the console's is rejected.
    log = guest / "console.log"
    other = re.sub(r"(ssh-ed25519 \S+AAAI)\S{8}", r"\g<1>AAAAAAAA", log.read_text())
    assert other != log.read_text()
    log.write_text(other)
    refused = ssh_lab("exec", "stock", "true", check=False)
    assert refused.returncode == 1
    assert "host key mismatch" in refused.stderr

    os.kill(pid, signal.SIGKILL)
    gone = ssh_lab("ssh", "stock", check=False)
    assert gone.returncode == 2
    assert "has exited" in gone.stderr
    ssh_lab("down")


def _has_no_way_out(labctl):
    """The guest's network ends at QEMU: 10.0.2.2 would be the host's loopback."""
    ask = "nc -w 3 {} {} </dev/null"
    itself = labctl("exec", "stock", ask.format("10.0.2.15", 22) + " | head -c 7")
    assert itself.stdout == "SSH-2.0"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        output = labctl("exec", "stock", ask.format("10.0.2.2", port), check=False)
        assert output.returncode != 0
        assert not select.select([server], [], [], 0)[0]


def _has_a_session(labctl):
    process, master, slave = on_a_terminal(labctl, "ssh", "stock")
    before = termios.tcgetattr(slave)
    read_until(master, "# ")
    os.write(master, b"tty; echo $((6 * 7))\n")
    assert "/dev/pts/" in read_until(master, "42\r\n")
    os.write(master, b"exit 5\n")
    assert process.wait(SSH_SECONDS) == 5
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def _lets_gdb_look_in(labctl):
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    commands = ("lx-version", "p/d init_task.pid", "info line start_kernel")
    words = [word for command in commands for word in ("-ex", command)]
    done = labctl("gdb", "stock", "--", "-batch", *words, check=False)
    assert done.returncode == 0, done.stderr
    assert "Linux version 6.1." in done.stdout, done.stdout + done.stderr
    assert "$1 = 0" in done.stdout
    assert "init/main.c" in done.stdout
    # The guest continues after gdb has detached.
    assert labctl("exec", "stock", "echo", "well").stdout == "well\n"
    (guest,) = labctl.json("status", "--json")["guests"]
    assert guest["state"] == "ready"


@pytest.mark.timeout(2700)
@pytest.mark.xdist_group("measuring")
def test_a_run_over_ssh_measures_and_reports(ssh_lab):
    document = json.loads(ssh_lab("run", "tiny", "--json", "--seed", "5", check=False).stdout)
    (experiment,) = document["experiments"]
    cells = {cell["label"]: cell for cell in experiment["cells"]}
    assert cells["parallel-free"]["handovers"] >= 4
    samples = [json.loads(line) for line in ssh_lab.samples()]
    assert {s["status"] for s in samples} == {"ok"}
    record = json.loads(next((ssh_lab.folder / ".labctl/runs").glob("*/run.json")).read_text())
    assert record["transport"] == "ssh"
    commands = list((ssh_lab.folder / ".labctl/runs").glob("*/guests/*/command.txt"))
    assert commands
    assert all("restrict=on" in path.read_text() for path in commands)
    assert ssh_lab.guests_running() == []
