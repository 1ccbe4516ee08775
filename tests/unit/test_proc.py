import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest

from labctl import completed, parent_death, proc, process_table
from labctl.errors import CommandError, HostError


def wait_until_gone(pid, seconds=5.0):
    deadline = time.monotonic() + seconds
    while process_table.started_ticks(pid) is not None:
        assert time.monotonic() < deadline, f"process {pid} still exists"
        time.sleep(0.01)


def wait_for_output(log, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not log.read_text():
        assert time.monotonic() < deadline, f"no output in {log}"
        time.sleep(0.01)


def test_run_returns_the_output():
    done = proc.run(["sh", "-c", "cat; echo problem >&2"], stdin=b"in", timeout_seconds=10)
    assert (done.stdout, done.stderr, done.status) == (b"in", b"problem\n", 0)


def test_a_failure_is_reported_with_its_output():
    with pytest.raises(CommandError, match="status 3: bad luck") as caught:
        proc.run(["sh", "-c", "echo bad luck >&2; exit 3"], timeout_seconds=10)
    assert caught.value.status == 3
    assert proc.run(["false"], timeout_seconds=10, check=False).status == 1


def test_a_missing_program_is_a_host_error():
    with pytest.raises(HostError, match="no-such-program is not installed"):
        proc.run(["no-such-program"], timeout_seconds=10)


def test_a_missing_folder_is_named_in_the_error(tmp_path):
    with pytest.raises(HostError, match=r"the folder .*nowhere does not exist"):
        proc.run(["true"], cwd=tmp_path / "nowhere", timeout_seconds=10)


def test_a_file_that_is_not_executable_cannot_be_started(tmp_path):
    notes = tmp_path / "notes"
    notes.write_text("text")
    for program in (notes, tmp_path):
        with pytest.raises(HostError, match="cannot be started: Permission denied"):
            proc.run([program], timeout_seconds=10)


def test_an_executable_file_further_back_in_path_is_started(monkeypatch, tmp_path):
    for folder, mode in (("first", 0o600), ("second", 0o700)):
        program = tmp_path / folder / "tool"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho $0")
        program.chmod(mode)
    monkeypatch.setenv("PATH", f"{tmp_path}/none:{tmp_path}/first:{tmp_path}/second")
    assert proc.run(["tool"], timeout_seconds=10).text == f"{tmp_path}/second/tool\n"
    done = proc.run(["./tool"], cwd=tmp_path / "second", timeout_seconds=10)
    assert (done.argv, done.text) == (("./tool",), "./tool\n")


def test_setpriv_and_the_shell_leave_words_and_pid_as_they_are(tmp_path):
    words = ["sh", "-c", 'echo $$; printf "%s\\n" "$0" "$@"', "-x", "a b", "", "*", "$HOME", "--"]
    log = tmp_path / "log"
    with proc.spawn(words, log=log) as process:
        assert process.wait(60) == 0
    assert log.read_text().splitlines() == [str(process.pid), *words[3:]]


def test_a_program_is_not_executed_if_its_starter_died_before_setpriv_ran(tmp_path, monkeypatch):
    orphan = tmp_path / "orphan"
    monkeypatch.setattr(os, "getpid", lambda: 1)  # not the parent's
    command = parent_death.command(["touch", str(orphan)])
    assert subprocess.run(command, check=False).returncode != 0
    assert not orphan.exists()


@pytest.mark.timeout(120)
def test_a_thousand_programs_start_beside_eight_busy_threads():
    stop = threading.Event()
    shared = threading.Lock()

    def work():
        while not stop.is_set():
            with shared:  # locks of Python and of malloc are what a fork copies while held
                bytearray(100_000)
            time.sleep(0.0005)  # else the starts wait for the interpreter, not for the kernel

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(1000):
            proc.run(["true"], timeout_seconds=60)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def test_a_program_is_killed_when_the_thread_that_started_it_ends(tmp_path):
    log = tmp_path / "log"
    started = []
    with ExitStack() as stack:

        def start():
            words = ["sh", "-c", "echo begun; exec sleep 1000"]
            started.append(stack.enter_context(proc.spawn(words, log=log)))
            wait_for_output(log)

        thread = threading.Thread(target=start)
        thread.start()
        thread.join(60)
        assert started[0].wait(60) == -signal.SIGKILL


def test_a_launched_program_outlives_the_thread_that_started_it(tmp_path):
    started = []
    words = ["sh", "-c", "echo begun; exec sleep 1000"]

    def start():
        log = tmp_path / "log"
        started.append(proc.launch(words, log=log, record=lambda _: None))
        wait_for_output(log)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(60)
    assert started[0].wait(0.5) is None
    started[0].end()


def test_a_launched_program_that_still_runs_is_freed_without_a_warning(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pid = proc.launch(["sleep", "1000"], log=tmp_path / "log", record=lambda _: None).pid
        gc.collect()
    assert caught == []
    process_table.Found(pid, process_table.started_ticks(pid)).end()


def test_a_deadline_kills_the_whole_group():
    with pytest.raises(CommandError, match="did not exit within"):
        proc.run(["sh", "-c", "sleep 1000 & echo $!; wait"], timeout_seconds=0.3)


def test_a_deadline_holds_if_a_child_in_another_session_keeps_the_output_open(monkeypatch):
    monkeypatch.setattr(proc, "TERMINATE_SECONDS", 0.2)
    with pytest.raises(CommandError, match="did not exit within") as caught:
        proc.run(["sh", "-c", "setsid sleep 1000 & echo $!; wait"], timeout_seconds=0.5)
    child = int(caught.value.output)
    assert process_table.started_ticks(child) is not None
    os.kill(child, signal.SIGKILL)


def test_children_run_in_the_c_locale(monkeypatch):
    monkeypatch.setenv("LC_MESSAGES", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    done = proc.run(["sh", "-c", "echo $LC_ALL-$LANGUAGE-$LC_MESSAGES"], timeout_seconds=10)
    assert done.text == "C--\n"


def test_spawn_ends_its_program(tmp_path):
    log = tmp_path / "log"
    with proc.spawn(["sh", "-c", "echo said; exec sleep 1000"], log=log) as process:
        deadline = time.monotonic() + 10
        while log.read_bytes() != b"said\n":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.poll() is None
    assert process.poll() is not None


def test_spawn_ends_its_program_after_an_error():
    with pytest.raises(RuntimeError), proc.spawn(["sleep", "1000"]) as process:
        raise RuntimeError
    assert process.poll() is not None


def test_a_program_that_ignores_sigterm_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(proc, "TERMINATE_SECONDS", 0.2)
    log = tmp_path / "log"
    deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done"
    with proc.spawn(["sh", "-c", deaf], log=log) as process:
        wait_for_output(log)
    assert process.poll() == -signal.SIGKILL


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_spawned_program_dies_with_labctl(tmp_path, ending):
    program = (
        "import time; from labctl import proc\n"
        "with proc.spawn(['sleep', '1000']) as p:\n"
        "    print(p.pid, flush=True)\n"
        "    while True: time.sleep(0.2)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        pid = int(owner.stdout.readline())
        assert process_table.started_ticks(pid) is not None
        owner.send_signal(ending)
        owner.wait(60)
    wait_until_gone(pid)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_labctl_also_ends_grandchildren(ending):
    program = (
        # the tests may run under nohup
        f"import signal; signal.signal({int(ending)}, signal.SIG_DFL)\n"
        "import time; from pathlib import Path; from labctl import cli, proc, process_table\n"
        "def action():\n"
        "    with proc.spawn(['sh', '-c', 'sleep 999 & echo $!; wait'], log=Path('/dev/stderr')):\n"
        "        while True: time.sleep(0.2)\n"
        "cli._quietly(action)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as owner:
        pid = int(owner.stderr.readline())
        assert process_table.started_ticks(pid) is not None
        owner.send_signal(ending)
        assert owner.wait(60) == 128 + ending
    wait_until_gone(pid)


def test_a_signal_during_the_start_of_a_program_ends_the_program(tmp_path):
    result = tmp_path / "pid"
    program = (
        "import os, signal, sys, time; from pathlib import Path; from labctl import cli, proc\n"
        "said, start = Path(sys.argv[1]), proc._start\n"
        "def start_and_signal(*args, **options):\n"
        "    popen = start(*args, **options)\n"
        "    while not (said.exists() and said.read_text().endswith('\\n')):\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return popen\n"
        "proc._start = start_and_signal\n"
        "def action():\n"
        "    with proc.spawn(['sh', '-c', 'sleep 999 & echo $! >\"$0\"; wait', said]):\n"
        "        while True: time.sleep(0.2)\n"
        "cli._quietly(action)\n"
    )
    owner = subprocess.run([sys.executable, "-c", program, result], timeout=30, check=False)
    assert owner.returncode == 128 + signal.SIGTERM
    wait_until_gone(int(result.read_text()))


def test_a_launched_program_outlives_labctl_and_is_recorded_before_a_signal_ends_it(tmp_path):
    result = tmp_path / "said"
    program = (
        "import os, signal, sys, time; from pathlib import Path\n"
        "from labctl import cli, proc, process_table\n"
        "said, start = Path(sys.argv[1]), proc._start\n"
        "def start_and_signal(*args, **options):\n"
        "    popen = start(*args, **options)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return popen\n"
        "proc._start = start_and_signal\n"
        "def record(pid):\n"
        "    said.write_text(f'{pid} {process_table.started_ticks(pid)}')\n"
        "def action():\n"
        "    proc.launch(['sleep', '1000'], log=said.with_name('log'), record=record)\n"
        "cli._quietly(action)\n"
    )
    owner = subprocess.run([sys.executable, "-c", program, result], timeout=30, check=False)
    assert owner.returncode == 128 + signal.SIGTERM
    pid, ticks = map(int, result.read_text().split())
    found = process_table.Found(pid, ticks)
    assert found.poll() is None
    found.end()
    assert found.poll() == 0
    wait_until_gone(pid)
    assert found.end() == 0  # may be called again


def test_a_program_that_cannot_be_recorded_is_ended(tmp_path):
    pids = []

    def record(pid):
        pids.append(pid)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        proc.launch(["sleep", "1000"], log=tmp_path / "log", record=record)
    wait_until_gone(*pids)


def test_a_process_that_reuses_the_pid_is_not_ended():
    process = subprocess.Popen(["sleep", "1000"])
    try:
        stranger = process_table.Found(process.pid, process_table.started_ticks(process.pid) + 1)
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
        assert process_table.started_ticks(process.pid) > 0
    finally:
        process.kill()
        process.wait(60)
    assert process_table.started_ticks(process.pid) is None


BUSY = """
import time
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
print("worked", flush=True)
while True:
    time.sleep(0.2)
"""


def test_the_cpu_time_of_children_is_included(tmp_path):
    before = proc.cpu_seconds()
    log = tmp_path / "log"
    with proc.spawn([sys.executable, "-c", BUSY], log=log):
        wait_for_output(log)
        living = proc.cpu_seconds()
        assert living - before >= 0.25
    assert proc.cpu_seconds() >= living - 0.05, "ended programs are included"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (2, "exited with status 2"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL, perhaps by the kernel's OOM killer (see `dmesg`)"),
        (
            137,
            "exited with status 137 (SIGKILL), perhaps by the kernel's OOM killer (see `dmesg`)",
        ),
        (-99, "exited with status -99"),
        (255, "exited with status 255"),
    ],
)
def test_a_status_is_described_in_words(status, text):
    assert completed.ending(status) == text


def test_a_killed_program_is_reported_as_killed():
    with pytest.raises(CommandError, match="was killed by SIGKILL, perhaps by the kernel's OOM"):
        proc.run(["sh", "-c", "kill -KILL $$"], timeout_seconds=10)
