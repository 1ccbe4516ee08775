"""The end of a command: the right exit status, no traceback."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import labctl

ROOT = Path(labctl.__file__).parent.parent
SECONDS = 60
LABCTL = [sys.executable, "-m", "labctl"]
LAB = "version: 1\nkernels:\n  stock: {source: 'image:bzImage'}\n"


@pytest.fixture
def lab(tmp_path):
    (tmp_path / "lab.yaml").write_text(LAB)
    (tmp_path / "bzImage").write_bytes(b"")
    return tmp_path


def run(*words, cwd=ROOT, env=None, **options):
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | options
    done = subprocess.run(
        [*LABCTL, *words],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stderr=subprocess.PIPE,
        timeout=SECONDS,
        **options,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def acting(body, *, env=None):
    """Run a labctl command with the Python code `body`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    program = (
        "import atexit, errno, os, signal, sys, time\nfrom labctl import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        # The tests may run under nohup.
        "for one in (signal.SIGHUP, signal.SIGTERM): signal.signal(one, signal.SIG_DFL)\n"
        f"def action():\n{lines}\ncli._quietly(action)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "LABCTL_TRACEBACK": "", **(env or {})},
    )
    assert env or "Traceback" not in done.stderr, done.stderr
    return done


# --- where the output goes -----------------------------------------------------------------


def test_a_closed_reader_of_stdout_is_no_failure():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run("schema", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_table_is_refreshed_until_its_reader_closes(lab):
    words = ["status", "--watch"]
    env = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"}  # to draw it into a pipe too
    with subprocess.Popen([*LABCTL, *words], cwd=lab, env=env, stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(SECONDS) == 0


def test_a_broken_pipe_elsewhere_is_a_failure():
    done = acting("raise BrokenPipeError(errno.EPIPE, 'Broken pipe')")
    assert done.returncode == 3
    assert "Broken pipe" in done.stderr


def test_a_full_disk_behind_stdout_is_reported():
    with Path("/dev/full").open("w") as full:
        done = run("schema", stdout=full)
    assert done.returncode == 3
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("words", [["schema"], ["plan", "--lab", "/no/such/lab.yaml"]])
def test_a_full_disk_behind_all_output_is_not_a_hang_up(words):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*LABCTL, *words], stdout=full, stderr=full, timeout=SECONDS)
    assert done.returncode == 3


@pytest.mark.parametrize("command", ["plan", "report", "status"])
def test_a_removed_current_folder_is_reported(tmp_path, command):
    folder = tmp_path / "gone"
    folder.mkdir()
    line = 'rmdir "$PWD" && exec "$@"'
    words = ["sh", "-c", line, "sh", *LABCTL, command]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=SECONDS, env=env
    )
    assert done.returncode == 2
    assert "the current folder was removed" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["schema", "plan"])
def test_a_closed_stream_reads_as_an_empty_one(lab, closed, command):
    line = f'exec "$@" {closed}'
    words = ["sh", "-c", line, "sh", *LABCTL, command]
    done = subprocess.run(words, cwd=lab, capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_unencodable_output_is_escaped_in_ascii(lab, encoding):
    (lab / "lab.yaml").write_text(LAB.replace("stock", "st\N{SNOWMAN}k"))
    done = run("plan", cwd=lab, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 2
    assert b"lab.yaml:3" in done.stderr
    done = run("init", "--help", env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0


# --- signals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(1)\n"
        "finally: os.kill(os.getpid(), signal.SIGINT); time.sleep(1)",
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(1)",
        "import click; echo = click.echo\n"
        "click.echo = lambda *a, **k: (os.kill(os.getpid(), signal.SIGINT), echo(*a, **k))\n"
        "raise KeyboardInterrupt",
    ],
    ids=["while it cleans up", "at its very end", "while it says so"],
)
def test_a_second_ctrl_c_ends_with_the_same_status(body):
    done = acting(body)
    assert (done.returncode, done.stderr.strip()) == (130, "labctl: interrupted")


@pytest.mark.parametrize(
    ("number", "body", "status"),
    [
        ("SIGHUP", "os.kill(os.getpid(), signal.SIGHUP); time.sleep(1)", 129),
        ("SIGTERM", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(1)", 143),
        ("SIGINT", "pass", 0),
    ],
)
def test_a_signal_at_the_very_end_does_not_change_its_status(number, body, status):
    done = acting(f"atexit.register(os.kill, os.getpid(), signal.{number})\n{body}")
    assert done.returncode == status


@pytest.mark.parametrize("error", ["OSError(errno.EIO, 'Input/output error')", "KeyError('x')"])
def test_errors_after_a_hang_up_do_not_change_the_status(error):
    body = (
        "signal.signal(signal.SIGHUP, signal.default_int_handler)\n"
        "from labctl.cli.terminal import unwound\n"
        "with unwound():\n"
        "    try: os.kill(os.getpid(), signal.SIGHUP); time.sleep(1)\n"
        f"    finally: raise {error}"
    )
    assert acting(body).returncode == 128 + signal.SIGHUP


@pytest.mark.parametrize("ignored", [False, True], ids=["hang-up", "nohup"])
def test_a_closed_terminal_ends_it(ignored):
    master, slave = pty.openpty()

    def prepare():
        os.setsid()
        _take_terminal(slave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    program = (
        "import click, time\nfrom labctl import cli\n"
        "def action():\n    while True: click.echo('here'); time.sleep(0.1)\n"
        "cli._quietly(action)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], preexec_fn=prepare)
    os.close(slave)
    try:
        assert select.select([master], [], [], SECONDS)[0]
        os.read(master, 1000)
        os.close(master)
        assert process.wait(SECONDS) == 128 + signal.SIGHUP
    finally:
        process.kill()
        process.wait(SECONDS)


def _take_terminal(slave):
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in range(3):
        os.dup2(slave, descriptor)


# --- internal errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ("MemoryError()", 3, "out of memory"),
        ("OSError(errno.ENOSPC, 'No space left on device', '/x/y')", 3, "/x/y: No space left"),
        ("PermissionError(errno.EACCES, 'Permission denied', '/x/y')", 3, "/x/y: Permission"),
        ("OSError('odd')", 3, "odd"),
        ("RecursionError('maximum recursion depth exceeded')", 70, "RecursionError"),
        ("KeyError('x')", 70, "KeyError: 'x'"),
        ("UnicodeDecodeError('utf-8', b'\\xff', 0, 1, 'bad')", 70, "UnicodeDecodeError"),
        ("ValueError('two\\nlines')", 70, "two lines"),
    ],
)
def test_an_internal_error_is_one_line_and_a_status(tmp_path, error, status, message):
    done = acting(f"raise {error}", env={"TMPDIR": str(tmp_path)})
    assert "Traceback" not in done.stderr
    assert done.returncode == status
    first, hint = done.stderr.splitlines()
    assert message in first
    assert hint.startswith("  hint: ")
    if status == 70:
        (kept,) = tmp_path.iterdir()
        assert str(kept) in hint
        assert "Traceback" in kept.read_text()


def test_a_traceback_is_shown_on_request(tmp_path):
    done = acting("{}['x']", env={"LABCTL_TRACEBACK": "1", "TMPDIR": str(tmp_path)})
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- lab.yaml ------------------------------------------------------------------------------


def _fifo(path):
    os.mkfifo(path)


def _large(path):
    with path.open("w") as file:
        file.write(LAB)
        for _ in range(100):
            file.write("# " + "x" * (1 << 20) + "\n")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "folder|directory"),
        (_fifo, "expected a file, got a special file"),
        (_large, "MiB"),
        (lambda p: p.write_bytes(bytes(range(256)) * 100), "UTF-8|not allowed"),
        (lambda p: p.write_bytes(b"\x7fELF\0\0\0" * 100), "not allowed"),
        (lambda p: p.write_text("a: " + "[" * 50_000), "nesting is too deep|not YAML"),
        (
            lambda p: p.write_text("".join(" " * n + "a:\n" for n in range(2000))),
            "nesting is too deep",
        ),
        (lambda p: p.symlink_to(p), "symbolic links|symlink"),
    ],
    ids=["folder", "FIFO", "100 MB", "bytes", "program", "brackets", "deep", "loop"],
)
def test_an_unreadable_lab_yaml_is_named(tmp_path, make, message):
    path = tmp_path / "lab.yaml"
    make(path)
    done = run("plan", "--lab", path, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr.decode())
    assert b"lab.yaml" in done.stderr


def test_a_path_that_is_not_utf8_is_shown(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    Path(os.fsdecode(folder)).mkdir()
    done = run("plan", "--lab", folder + b"/lab.yaml")
    assert done.returncode == 2
    Path(os.fsdecode(folder), "lab.yaml").write_text(LAB)
    Path(os.fsdecode(folder), "bzImage").write_bytes(b"")
    for words in (["plan"], ["plan", "--json"], ["status"], ["report"]):
        assert run(*words, "--lab", folder + b"/lab.yaml").returncode in (0, 2)


# Root can read and write every file unless it drops these capabilities.
HARMLESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []


@pytest.mark.skipif(bool(HARMLESS) and not shutil.which("setpriv"), reason="needs setpriv")
@pytest.mark.parametrize("closed", ["lab.yaml", ".labctl", ".labctl/runs", ".labctl/guests"])
@pytest.mark.parametrize("command", ["status", "report", "plan", "clean", "down"])
def test_a_file_without_read_permission_is_named(lab, closed, command):
    for name in ("runs", "guests"):
        (lab / ".labctl" / name).mkdir(parents=True)
    (lab / closed).chmod(0)
    try:
        done = subprocess.run(
            [*HARMLESS, *LABCTL, command], cwd=lab, capture_output=True, text=True, timeout=SECONDS
        )
    finally:
        (lab / closed).chmod(0o700)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 2, 3), done.stderr
    if done.returncode == 3 or closed == "lab.yaml":
        assert f"{lab / closed}" in done.stderr
        assert "Permission denied" in done.stderr
