"""A QEMU that is stopped: its sockets take connections, and nothing ever answers."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from labctl.errors import GuestHung, GuestLost
from labctl.guests import qemu
from labctl.guests.fleet import Fleet
from labctl.guests.qemu import GuestSpec
from labctl.kernels.build import Image
from labctl.lab.topology import Topology
from labctl.transports.serial import SerialTransport

# As QEMU, it listens for one client; `greets` is whether it does before it is stopped.
SERVER = """\
import socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(1)
print("listens", flush=True)
client, _ = server.accept()
client.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\\r\\n')
client.recv(1000)
client.sendall(b'{"return": {}}\\r\\n')
client.recv(1000)
for _ in range(100):
    time.sleep(1)
"""
LAB = """\
version: 1
state: state
guests: {numa4: {nodes: 4}}
kernels: {stock: {source: image:/bin/true}}
"""
PATIENCE_SECONDS = 1.0
ENDLESS_SECONDS = 60.0


@pytest.fixture
def server(tmp_path):
    words = [sys.executable, "-c", SERVER, str(tmp_path / "monitor.sock")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait(10)
    process.stdout.close()


def monitor(tmp_path):
    return qemu.Monitor(tmp_path / "monitor.sock", "stock", patience_seconds=PATIENCE_SECONDS)


def fill(path):
    """Leave no place in the queue of a socket that nobody serves; return what fills it."""
    waiting = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        waiting.append(client)
        try:
            client.connect(str(path))
        except BlockingIOError:
            return waiting


@pytest.mark.timeout(ENDLESS_SECONDS)
def test_a_stopped_qemu_is_hung_not_waited_for(tmp_path, server):
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(GuestHung, match="did not answer within 1 s"):
        monitor(tmp_path)


@pytest.mark.timeout(ENDLESS_SECONDS)
def test_so_is_one_whose_queue_is_full(tmp_path, server):
    os.kill(server.pid, signal.SIGSTOP)
    waiting = fill(tmp_path / "monitor.sock")
    with pytest.raises(GuestHung, match="did not answer within 1 s"):
        monitor(tmp_path)
    line = SerialTransport(tmp_path / "monitor.sock", alive=lambda: None, silence_seconds=1.0)
    with pytest.raises(GuestLost, match="command port"):
        line.run(["true"], 1.0)
    for client in waiting:
        client.close()


@pytest.mark.timeout(ENDLESS_SECONDS)
def test_and_one_that_falls_silent_after_its_greeting(tmp_path, server, capfd):
    line = monitor(tmp_path)
    with pytest.raises(GuestHung):
        line.do("query-status")
    line.close()
    assert capfd.readouterr().err == ""


def test_a_monitor_that_is_not_there_is_lost_at_once(tmp_path):
    with pytest.raises(GuestLost, match="monitor"):
        monitor(tmp_path)


@pytest.mark.timeout(ENDLESS_SECONDS)
def test_a_signal_ends_the_wait(tmp_path, server):
    os.kill(server.pid, signal.SIGSTOP)

    class Interrupted(BaseException):
        pass

    def handler(*_):
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    killer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    killer.start()
    began = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            qemu.Monitor(tmp_path / "monitor.sock", "stock", patience_seconds=50)
    finally:
        killer.join(10)
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - began < 40


QEMU = """\
#!{python}
import socket, sys, time
if "--version" in sys.argv:
    sys.exit()
servers = []
for name in ("monitor", "line"):
    servers.append(socket.socket(socket.AF_UNIX))
    servers[-1].bind(name + ".sock")
    servers[-1].listen(1)
with open("console.log", "w") as console:
    console.write("[ 1.0] labctl: node 0 cpus=0 memory_kib=1572480 distances=10\\n")
    console.write("[ 1.0] labctl: ready boot=0a1b2c3d-0000-4000-8000-0123456789ab\\n")
for _ in range(100):
    time.sleep(1)
"""


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    """The guest `stock` of `up`, whose QEMU is stopped."""
    program = tmp_path / "tools" / "qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text(QEMU.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    fleet = Fleet(tmp_path / "state" / "guests")
    image = Image("stock", Path("bz"), "1", "0", None, (), Path("config"), "6.1", "gcc")
    folder = fleet.spec_folder("stock")
    spec = GuestSpec("stock", image, Topology(nodes=1), Path("initramfs"), "tcg", folder)
    fleet.up([spec], ENDLESS_SECONDS)
    (row,) = json.loads(f"[{(folder / 'guest.json').read_text()}]")
    os.kill(row["pid"], signal.SIGSTOP)
    yield fleet
    if fleet.names():
        fleet.down("stock")


@pytest.mark.timeout(2 * ENDLESS_SECONDS)
def test_guests_that_are_stopped_are_seen_and_ended(fleet, monkeypatch):
    monkeypatch.setattr(qemu, "PATIENCE_SECONDS", PATIENCE_SECONDS)
    (row,) = fleet.status()
    assert row["state"] == "hung"
    with fleet.paused() as stopped:
        assert stopped == []
    with pytest.raises(GuestHung), fleet.guest("stock", patience_seconds=0.5):
        pass
    fleet.down("stock")
    assert not Path(f"/proc/{row['pid']}").exists() or _is_dead(row["pid"])


def _is_dead(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.timeout(2 * ENDLESS_SECONDS)
def test_exec_gives_up_in_time(fleet, tmp_path):
    (tmp_path / "lab.yaml").write_text(LAB)
    words = ["exec", "--lab", str(tmp_path / "lab.yaml"), "--timeout", "4", "stock", "true"]
    done = subprocess.run(
        [sys.executable, "-m", "labctl", *words], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 1
    assert "QEMU's monitor did not answer within 4 s" in done.stderr
