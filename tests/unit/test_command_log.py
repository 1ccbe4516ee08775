"""`labctl -v`, `-vv` and the log of the commands of a run."""

import contextlib
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import labctl as package
from labctl import command_log, proc
from labctl.errors import HostError
from labctl.experiments import session
from labctl.lab.state import StateFolder


@pytest.fixture
def log(tmp_path):
    with command_log.of_run() as run_log:
        run_log.use(tmp_path)
        yield lambda: (tmp_path / command_log.FILE_NAME).read_text()


def test_each_way_to_start_a_program_is_logged_with_its_folder(log, tmp_path):
    proc.run(["echo", "a b", "it's"], timeout_seconds=60)
    proc.run(["true"], cwd=tmp_path, timeout_seconds=60)
    proc.foreground(["sh", "-c", "exit 0"], cwd=tmp_path)
    output = tmp_path / "out put"
    with proc.spawn(["sh", "-c", "echo built"], log=output) as process:
        process.wait(60)
    proc.launch(["true"], log=output, record=lambda _: None).wait(60)
    lines = [line.split(" ", 2)[2] for line in log().splitlines() if "  | " not in line]
    assert lines == [
        "+ echo 'a b' 'it'\"'\"'s'",
        f"+ [in {tmp_path}] true",
        f"+ [in {tmp_path}] sh -c 'exit 0'",
        f"+ sh -c 'echo built' >> '{output}'",
        f"+ true >> '{output}'",
    ]


def test_a_command_that_cannot_be_started_is_logged(log):
    with pytest.raises(HostError):
        proc.run(["no-such-program"], timeout_seconds=60)
    assert log().endswith("+ no-such-program\n")


def test_output_is_logged_printable_and_limited(log, tmp_path):
    proc.run(["printf", r"one\033[2J\ntwo\n"], timeout_seconds=60)
    with proc.spawn(["sh", "-c", "echo new; echo problem >&2"], log=tmp_path / "out") as process:
        process.wait(60)
    proc.run(["sh", "-c", "yes | head -c 20000"], timeout_seconds=60)
    text = log()
    assert "  | one?[2J\n  | two\n" in text
    assert "  | new\n  | problem\n" in text
    assert "  | [3616 bytes omitted]\n  | y\n" in text
    assert len(text) < 60_000


def test_only_what_a_program_appends_to_its_log_is_logged(log, tmp_path):
    output = tmp_path / "out"
    output.write_text("old\n")
    with proc.spawn(["echo", "new"], log=output) as process:
        process.wait(60)
    assert "  | new\n" in log()
    assert "  | old" not in log()


def test_commands_before_the_folder_exists_are_in_the_log_too(tmp_path):
    with command_log.of_run() as run_log:
        proc.run(["echo", "early"], timeout_seconds=60)
        run_log.use(tmp_path)
        proc.run(["echo", "late"], timeout_seconds=60)
    proc.run(["echo", "after"], timeout_seconds=60)
    text = (tmp_path / command_log.FILE_NAME).read_text()
    assert [word for word in ("early", "late", "after") if f"+ echo {word}\n" in text] == [
        "early",
        "late",
    ]
    assert not command_log.LOGGER.isEnabledFor(logging.INFO)


def test_a_log_that_cannot_be_written_fails_no_command(tmp_path):
    with command_log.of_run() as run_log:
        run_log.use(tmp_path / "missing")
        assert proc.run(["true"], timeout_seconds=60).status == 0


def labctl(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "labctl", *words],
        capture_output=True, text=True, timeout=100, **options,
    )  # fmt: skip


def test_only_proc_starts_programs():
    root = Path(package.__file__).parent
    starters = re.compile(r"\bos\.(exec|spawn|posix_spawn|popen|system|fork)|\bpty\.(spawn|fork)")
    assert not [path for path in root.rglob("*.py") if starters.search(path.read_text())]


def test_v_prints_commands_and_vv_their_output(tmp_path):
    plain = labctl("doctor", cwd=tmp_path)
    commands = labctl("-v", "doctor", cwd=tmp_path)
    both = labctl("-vv", "doctor", cwd=tmp_path)
    assert "+ " not in plain.stderr
    assert "+ gcc --version\n" in commands.stderr
    assert "  | " not in commands.stderr
    assert "+ gcc --version\n  | gcc" in both.stderr
    assert plain.stdout.split()[:2] == commands.stdout.split()[:2]


LIVE = """
import sys
from labctl import proc, progress
from labctl.cli import verbose
with verbose.shown(2), progress.Building() as line:
    line.show("live")
    proc.run(["echo", "hello"], timeout_seconds=60)
    line.show("still live")
    proc.run(["echo", "[bold]" + "x" * 200], timeout_seconds=60)
"""


def test_a_live_line_stays_below_the_commands():
    master, slave = pty.openpty()
    words = [sys.executable, "-c", LIVE]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    subprocess.run(words, stdout=slave, stderr=slave, env=env, check=True, timeout=100)
    os.close(slave)
    seen = b""
    try:
        while data := os.read(master, 4096):
            seen += data
    except OSError:  # the terminal is closed
        pass
    os.close(master)
    text = seen.decode()
    # The live line is erased (CSI 2K) before a command is printed, and never shares its line.
    assert "+ echo hello\r\n" in text
    assert "\r\x1b[2K  | hello\r\n" in text
    assert "+ echo '[bold]" + "x" * 200 + "'\r\n" in text


def test_a_run_keeps_the_commands_of_its_preparation_too(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def prepared(*_):
        proc.run(["echo", "building"], timeout_seconds=60)
        yield SimpleNamespace(prepared=None, supplies=None, document=lambda *_: {"schema": 1})

    @contextlib.contextmanager
    def under_way(folder, *_):
        yield SimpleNamespace(folder=folder, measure=lambda each, **_: measured.append(each))
        proc.run(["echo", "measured"], timeout_seconds=60)

    measured = []
    monkeypatch.setattr(session, "_prepared", prepared)
    monkeypatch.setattr(session, "_under_way", under_way)
    monkeypatch.setattr(session, "plan", lambda _, name, seed: (name, seed))
    lab = SimpleNamespace(
        state_folder=StateFolder(tmp_path), experiments=["smoke"], path=tmp_path / "lab.yaml"
    )
    folder = session.run(lab, ["smoke"], seed=7, events=None)
    assert measured == [("smoke", 7)]
    text = (folder.path / command_log.FILE_NAME).read_text()
    assert text.index("+ echo building\n") < text.index("+ echo measured\n")
