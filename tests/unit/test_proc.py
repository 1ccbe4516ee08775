import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labctl import proc
from labctl.errors import CommandError, HostError


def wait_until_gone(pid, seconds=5.0):
    deadline = time.monotonic() + seconds
    while proc.started_ticks(pid) is not None:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def wait_until_told(log, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not log.read_text():
        assert time.monotonic() < deadline, f"nothing came into {log}"
        time.sleep(0.01)


def test_run_returns_what_was_printed():
    done = proc.run(["sh", "-c", "cat; echo problem >&2"], stdin=b"in", timeout_seconds=10)
    assert (done.stdout, done.stderr, done.status) == (b"in", b"problem\n", 0)


def test_a_failure_is_told_with_its_output():
    with pytest.raises(CommandError, match="status 3: bad luck") as caught:
        proc.run(["sh", "-c", "echo bad luck >&2; exit 3"], timeout_seconds=10)
    assert caught.value.status == 3
    assert proc.run(["false"], timeout_seconds=10, check=False).status == 1


def test_a_missing_program_is_the_hosts_problem():
    with pytest.raises(HostError, match="no-such-program is not installed"):
        proc.run(["no-such-program"], timeout_seconds=10)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(HostError, match=r"the folder .*nowhere does not exist"):
        proc.run(["true"], cwd=tmp_path / "nowhere", timeout_seconds=10)


def test_a_deadline_ends_the_whole_group():
    with pytest.raises(CommandError, match="did not end within"):
        proc.run(["sh", "-c", "sleep 1000 & echo $!; wait"], timeout_seconds=0.3)


def test_a_deadline_holds_where_a_child_in_another_session_keeps_the_output_open(monkeypatch):
    monkeypatch.setattr(proc, "_TERMINATE_SECONDS", 0.2)
    with pytest.raises(CommandError, match="did not end within") as caught:
        proc.run(["sh", "-c", "setsid sleep 1000 & echo $!; wait"], timeout_seconds=0.5)
    child = int(caught.value.output)
    assert proc.started_ticks(child) is not None
    os.kill(child, signal.SIGKILL)


def test_children_run_in_the_c_locale(monkeypatch):
    monkeypatch.setenv("LC_MESSAGES", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    done = proc.run(["sh", "-c", "echo $LC_ALL-$LANGUAGE-$LC_MESSAGES"], timeout_seconds=10)
    assert done.text == "C--\n"


def test_spawn_ends_what_it_began(tmp_path):
    log = tmp_path / "log"
    with proc.spawn(["sh", "-c", "echo said; exec sleep 1000"], log=log) as process:
        deadline = time.monotonic() + 10
        while log.read_bytes() != b"said\n":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.poll() is None
    assert process.poll() is not None


def test_spawn_ends_it_after_an_error_too():
    with pytest.raises(RuntimeError), proc.spawn(["sleep", "1000"]) as process:
        raise RuntimeError
    assert process.poll() is not None


def test_a_process_that_ignores_the_polite_request_ends_too(monkeypatch, tmp_path):
    monkeypatch.setattr(proc, "_TERMINATE_SECONDS", 0.2)
    log = tmp_path / "log"
    deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done"
    with proc.spawn(["sh", "-c", deaf], log=log) as process:
        wait_until_told(log)
    assert process.poll() == -signal.SIGKILL


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_spawned_dies_with_its_owner(tmp_path, ending):
    program = (
        "import time; from labctl import proc\n"
        "with proc.spawn(['sleep', '1000']) as p:\n"
        "    print(p.pid, flush=True)\n"
        "    while True: time.sleep(0.2)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    pid = int(owner.stdout.readline())
    assert proc.started_ticks(pid) is not None
    owner.send_signal(ending)
    owner.wait(60)
    wait_until_gone(pid)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_takes_its_childrens_children_along(ending):
    program = (
        # whatever the tests were started with, nohup say
        f"import signal; signal.signal({int(ending)}, signal.SIG_DFL)\n"
        "import time; from pathlib import Path; from labctl import cli, proc\n"
        "def action():\n"
        "    with proc.spawn(['sh', '-c', 'sleep 999 & echo $!; wait'], log=Path('/dev/stderr')):\n"
        "        while True: time.sleep(0.2)\n"
        "cli._quietly(action)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    pid = int(owner.stderr.readline())
    assert proc.started_ticks(pid) is not None
    owner.send_signal(ending)
    assert owner.wait(60) == 128 + ending
    wait_until_gone(pid)


def test_a_signal_that_comes_while_a_program_starts_ends_the_program_too(tmp_path):
    said = tmp_path / "pid"
    program = (
        "import os, signal, sys, time; from pathlib import Path; from labctl import cli, proc\n"
        "said, start = Path(sys.argv[1]), proc._start\n"
        "def started_and_told_to_end(*args, **options):\n"
        "    popen = start(*args, **options)\n"
        "    while not (said.exists() and said.read_text().endswith('\\n')):\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return popen\n"
        "proc._start = started_and_told_to_end\n"
        "def action():\n"
        "    with proc.spawn(['sh', '-c', 'sleep 999 & echo $! >\"$0\"; wait', said]):\n"
        "        while True: time.sleep(0.2)\n"
        "cli._quietly(action)\n"
    )
    owner = subprocess.run([sys.executable, "-c", program, said], timeout=30, check=False)
    assert owner.returncode == 128 + signal.SIGTERM
    wait_until_gone(int(said.read_text()))


def test_what_was_launched_outlives_its_starter_and_is_known_before_a_signal_ends_that(tmp_path):
    said = tmp_path / "said"
    program = (
        "import os, signal, sys, time; from pathlib import Path; from labctl import cli, proc\n"
        "said, start = Path(sys.argv[1]), proc._start\n"
        "def started_and_told_to_end(*args, **options):\n"
        "    popen = start(*args, **options)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return popen\n"
        "proc._start = started_and_told_to_end\n"
        "def record(pid):\n"
        "    said.write_text(f'{pid} {proc.started_ticks(pid)}')\n"
        "def action():\n"
        "    proc.launch(['sleep', '1000'], log=said.with_name('log'), record=record)\n"
        "cli._quietly(action)\n"
    )
    owner = subprocess.run([sys.executable, "-c", program, said], timeout=30, check=False)
    assert owner.returncode == 128 + signal.SIGTERM
    pid, ticks = map(int, said.read_text().split())
    found = proc.Found(pid, ticks)
    assert found.poll() is None
    found.end()
    assert found.poll() == 0
    wait_until_gone(pid)
    assert found.end() == 0  # once more does no harm


def test_what_cannot_be_recorded_is_not_left_running(tmp_path):
    pids = []

    def record(pid):
        pids.append(pid)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        proc.launch(["sleep", "1000"], log=tmp_path / "log", record=record)
    wait_until_gone(*pids)


def test_another_process_of_the_same_pid_is_not_ours():
    process = subprocess.Popen(["sleep", "1000"])
    try:
        stranger = proc.Found(process.pid, proc.started_ticks(process.pid) + 1)
        assert stranger.poll() == 0
        stranger.end()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(60)


def test_a_program_with_parentheses_in_its_name_is_found(tmp_path):
    odd = tmp_path / "a) b (c"
    odd.symlink_to(Path("/bin/sleep"))
    process = subprocess.Popen([odd, "1000"])
    try:
        assert proc.started_ticks(process.pid) > 0
    finally:
        process.kill()
        process.wait(60)
    assert proc.started_ticks(process.pid) is None


BUSY = """
import time
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
print("worked", flush=True)
while True:
    time.sleep(0.2)
"""


def test_the_cpu_time_of_what_was_started_is_ones_own(tmp_path):
    before = proc.cpu_seconds()
    log = tmp_path / "log"
    with proc.spawn([sys.executable, "-c", BUSY], log=log):
        wait_until_told(log)
        living = proc.cpu_seconds()
        assert living - before >= 0.25
    assert proc.cpu_seconds() >= living - 0.05, "what ended is not forgotten"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (2, "ended with status 2"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL, perhaps by the kernel's OOM killer (`dmesg` tells)"),
        (
            137,
            "ended with status 137 (SIGKILL), perhaps by the kernel's OOM killer (`dmesg` tells)",
        ),
        (-99, "ended with status -99"),
        (255, "ended with status 255"),
    ],
)
def test_an_end_is_told_in_words(status, told):
    assert proc.ending(status) == told


def test_a_program_that_was_killed_is_not_one_that_failed():
    with pytest.raises(CommandError, match="was killed by SIGKILL, perhaps by the kernel's OOM"):
        proc.run(["sh", "-c", "kill -KILL $$"], timeout_seconds=10)
