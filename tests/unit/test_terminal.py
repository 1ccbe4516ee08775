"""The terminal: single key presses, and its state is restored."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

from labctl import proc, process_table
from labctl.cli import terminal
from labctl.transports.console import Follower

SECONDS = 60.0


@pytest.fixture
def tty():
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_keys_are_unbuffered_and_the_terminal_is_restored(tty):
    master, slave = tty
    before = termios.tcgetattr(slave)
    with terminal.keys(slave):
        assert not terminal.detached(slave, 0.0)
        os.write(master, b"x")
        assert not terminal.detached(slave, SECONDS)
        os.write(master, b"\x1d")
        assert terminal.detached(slave, SECONDS)
        os.write(master, b"\x03")
        assert terminal.detached(slave, SECONDS)
    assert termios.tcgetattr(slave) == before
    with pytest.raises(ZeroDivisionError), terminal.keys(slave):
        raise ZeroDivisionError
    assert termios.tcgetattr(slave) == before


def test_a_non_terminal_is_left_alone():
    read, write = os.pipe()
    with terminal.keys(read):
        os.write(write, b"\x1d")
        assert not terminal.detached(read, 0.0)
    os.close(read)
    os.close(write)


def test_the_console_is_followed_from_its_end(tmp_path):
    log = tmp_path / "log"
    follower = Follower(log, 2)
    assert follower.read() == b""
    log.write_bytes(b"one\r\ntwo\r\nthree\r\n")
    assert follower.read() == b"two\nthree\n"
    with log.open("ab") as file:
        file.write(b"fo")
    assert follower.read() == b"fo"
    assert follower.read() == b""
    log.unlink()
    assert follower.read() == b""
    log.write_bytes(b"another boot\n")
    assert follower.read() == b"another boot\n"


# --- the program on a terminal -------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path):
    """A lab whose guest `stock` is an idle process."""
    (tmp_path / "lab.yaml").write_text("version: 1\nkernels:\n  stock: {source: 'image:bzImage'}\n")
    (tmp_path / "bzImage").write_bytes(b"")
    folder = tmp_path / ".labctl" / "guests" / "stock"
    folder.mkdir(parents=True)
    guest = subprocess.Popen(["sleep", "1000"])
    record = {"pid": guest.pid, "started_ticks": process_table.started_ticks(guest.pid), "spec": {}}
    (folder / "guest.json").write_text(json.dumps(record))
    (folder / "console.log").write_text("".join(f"line {n}\n" for n in range(200)))
    yield tmp_path
    guest.kill()
    guest.wait(60)


def heed_signals():
    """Restore default signals: background jobs ignore SIGINT, and nohup ignores SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(lab, slave, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "labctl", *words],
        cwd=lab,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=heed_signals,
    )


def read_until(master, text):
    seen, deadline = "", time.monotonic() + SECONDS
    while text not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([master], [], [], 1.0)[0]:
            seen += os.read(master, 65536).decode()
    return seen


@pytest.mark.parametrize("leave", ["Ctrl-]", "Ctrl-C", "SIGTERM", "SIGHUP"])
def test_console_restores_the_terminal(lab, tty, leave):
    master, slave = tty
    before = termios.tcgetattr(slave)
    process = start(lab, slave, "console", "stock")
    seen = read_until(master, "line 199")
    assert "Ctrl-]" in seen
    assert "line 100\r" not in seen
    with (lab / ".labctl/guests/stock/console.log").open("a") as log:
        log.write("it goes on\n")
    read_until(master, "it goes on")
    assert termios.tcgetattr(slave) != before
    if leave.startswith("SIG"):
        number = getattr(signal, leave)
        process.send_signal(number)
        expected = 128 + number
    else:
        os.write(master, {"Ctrl-]": b"\x1d", "Ctrl-C": b"\x03"}[leave])
        expected = 0
    assert process.wait(SECONDS) == expected
    assert termios.tcgetattr(slave) == before


def test_console_prints_the_last_lines(lab, tty):
    master, slave = tty
    process = start(lab, slave, "console", "-n", "3", "stock")
    seen = read_until(master, "line 199")
    assert process.wait(SECONDS) == 0
    assert "line 197" in seen
    assert "line 196" not in seen
    done = subprocess.run(
        [sys.executable, "-m", "labctl", "console", "stock"],
        cwd=lab,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert len(done.stdout.splitlines()) == 100


def test_following_ends_with_the_guest(lab):
    process = subprocess.Popen(
        [sys.executable, "-m", "labctl", "console", "--follow", "stock"],
        cwd=lab,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    record = json.loads((lab / ".labctl/guests/stock/guest.json").read_text())
    assert process.stdout.readline() == b"line 180\n"
    os.kill(record["pid"], signal.SIGKILL)
    _, result = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert b"stock has exited" in result


def test_status_watch_ends_with_ctrl_c(tmp_path, tty):
    (tmp_path / "lab.yaml").write_text("version: 1\nkernels:\n  stock: {source: 'image:bz'}\n")
    (tmp_path / "bz").write_bytes(b"")
    master, slave = tty
    process = start(tmp_path, slave, "status", "--watch")
    read_until(master, "no guests running")
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 0


# --- a foreground program ------------------------------------------------------------------------


def test_the_foreground_program_gets_ctrl_c_and_its_status_is_ours(tmp_path):
    script = f"trap 'exit 7' INT; touch {tmp_path}/ready; while :; do sleep 0.1; done"
    program = (
        f"import sys; from labctl import proc; sys.exit(proc.foreground(['sh','-c',{script!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, preexec_fn=heed_signals
    )
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(SECONDS) == 7


def test_a_signal_of_the_foreground_program_is_reported_like_a_shell():
    assert proc.foreground(["sh", "-c", "exit 3"]) == 3
    assert proc.foreground(["sh", "-c", "kill -9 $$"]) == 137
