import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.host import identity, lock, tools
from labctl.host.load import load

HOLDER = """
import sys, time
from pathlib import Path
from labctl.host import lock
with lock.measuring("run other", waiting=print, folder=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_host_is_described_without_its_name():
    facts = identity.describe().as_dict()
    assert facts["cores"] >= 1
    assert facts["memory_bytes"] > 2**28
    assert len(facts["id"]) == 12
    assert identity.describe().id == facts["id"]


def test_a_virtual_machine_on_another_cpu_is_another_host(monkeypatch):
    files = {"/etc/machine-id": "4711", "/proc/meminfo": "MemTotal: 4 kB"}
    monkeypatch.setattr(identity.procfs, "read", lambda name: files.get(str(name), ""))
    ids = []
    for model in ("AMD EPYC", "Intel Xeon", "AMD EPYC"):
        files["/proc/cpuinfo"] = f"processor : 0\nmodel name\t: {model}\n"
        ids.append(identity.describe().id)
    assert ids[0] == ids[2] != ids[1]


def test_load_has_cumulative_times():
    before = load()
    until = time.process_time() + 0.2  # CPU time, not wall time: the host may be busy
    while time.process_time() < until:
        pass
    after = load()
    assert after["busy_seconds"] > before["busy_seconds"]
    assert after["steal_seconds"] >= before["steal_seconds"]
    assert after["own_seconds"] - before["own_seconds"] >= 0.19


def tree(root, cpus, pressure, files):
    (root / "proc/pressure").mkdir(parents=True)
    (root / "proc/stat").write_text("cpu  9 9 9 9 9 9 9 9 0 0\n" + cpus)
    for what, total in pressure.items():
        (root / "proc/pressure" / what).write_text(f"some avg10=0.00 total={total}\nfull total=1\n")
    for core in os.sched_getaffinity(0):
        for path, text in files.items():
            file = root / f"sys/devices/system/cpu/cpu{core}" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return root


def test_load_counts_only_usable_cores(tmp_path):
    cores = len(os.sched_getaffinity(0))
    ticks = os.sysconf("SC_CLK_TCK")
    mine = "".join(
        f"cpu{core} {ticks} 0 {ticks} 5 5 {ticks} {ticks} {ticks} 0 0\n"
        for core in os.sched_getaffinity(0)
    )
    found = load(
        tree(
            tmp_path,
            mine + "cpu9999 777 777 777 777 777 777 777 777 0 0\n",
            {"cpu": 2_500_000, "memory": 500_000},
            {
                "cpufreq/scaling_cur_freq": "2600000\n",
                "thermal_throttle/core_throttle_count": "3\n",
            },
        )
    )
    assert found["cores"] == cores
    assert found["busy_seconds"] == 4 * cores
    assert found["steal_seconds"] == cores
    assert found["cpu_pressure_seconds"] == 2.5
    assert found["memory_pressure_seconds"] == 0.5
    assert found["frequency_hz"] == 2.6e9
    assert found["throttled_count"] == 3 * cores


def test_missing_host_facts_are_left_out(tmp_path):
    found = load(tmp_path)
    assert "frequency_hz" not in found
    assert "memory_pressure_seconds" not in found
    assert found["busy_seconds"] == 0


@pytest.fixture
def start_holder(tmp_path):
    """Start other processes that hold the lock until their stdin is closed."""
    with contextlib.ExitStack() as stack:

        def start(program=HOLDER):
            words = [sys.executable, "-c", program, str(tmp_path)]
            holder = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(holder)
            stack.callback(holder.kill)
            assert holder.stdout.readline() == "held\n"
            return holder

        yield start


def test_one_measurement_at_a_time(tmp_path, start_holder):
    holder = start_holder()
    messages = []

    def waiting(text):
        messages.append(text)
        holder.stdin.close()  # lets the holder go

    with lock.measuring("run mine", waiting=waiting, folder=tmp_path):
        assert holder.wait(10) == 0
    assert messages == [f"process {holder.pid}: run other"]


def test_the_lock_of_a_killed_holder_is_released(tmp_path, start_holder):
    holder = start_holder()
    holder.kill()
    holder.wait(60)
    messages = []
    with lock.measuring("run mine", waiting=messages.append, folder=tmp_path):
        assert messages == []


def lock_in(folder):
    return folder / f"labctl-measuring-{os.geteuid()}.lock"


def plant(kind, path, victim):
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "hard link":
        path.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling symlink":
        path.symlink_to(path.with_name("made"))


@pytest.mark.parametrize("kind", ["symlink", "dangling symlink", "hard link", "pipe", "folder"])
def test_a_planted_lock_file_is_rejected_and_unchanged(tmp_path, kind):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    for name in (lock_in(tmp_path).name, "labctl-measuring.lock"):
        plant(kind, tmp_path / name, victim)
    before = sorted(tmp_path.iterdir())
    with (
        pytest.raises(HostError, match=lock_in(tmp_path).name),
        lock.measuring("mine", waiting=print, folder=tmp_path),
    ):
        pass
    assert sorted(tmp_path.iterdir()) == before
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode & 0o777 == 0o600


def test_a_planted_lock_file_of_another_user_is_ignored(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for number, kind in enumerate(("symlink", "hard link", "pipe", "folder", "plain"), 10_000):
        path = tmp_path / f"labctl-measuring-{number}.lock"
        plant(kind, path, victim)
        if kind == "plain":
            path.write_text("process 1: of a user who is not 10004")
    messages = []
    with lock.measuring("mine", waiting=messages.append, folder=tmp_path):
        assert lock_in(tmp_path).stat().st_mode & 0o777 == 0o644
    assert messages == []
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
def test_a_lock_with_another_owner_is_rejected(tmp_path):
    lock_in(tmp_path).write_text("")
    os.chown(lock_in(tmp_path), 65534, -1)
    with (
        pytest.raises(HostError, match="belongs to user 65534"),
        lock.measuring("mine", waiting=print, folder=tmp_path),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
@pytest.mark.parametrize("first", [0, 65534])
def test_two_users_do_not_measure_at_the_same_time(first):
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # accessible to other users
    folder.chmod(0o1777)
    for each in (0, 65534):  # both have measured before
        os.waitpid(forked(each, lambda: hold(folder, lambda: None)), 0)
    reader, writer = os.pipe()
    ends, end = os.pipe()

    def held():
        os.write(writer, b"held")
        os.read(ends, 1)

    holder = forked(first, lambda: hold(folder, held))
    try:
        assert os.read(reader, 4) == b"held"
        result = folder / "reported"

        def waiting(text):
            result.write_text(text)
            os.write(end, b"x")  # lets the holder go

        other = forked(65534 - first, lambda: hold(folder, lambda: None, waiting))
        assert os.waitpid(other, 0)[1] == 0
        assert result.read_text() == f"process {holder}: it"
        assert os.waitpid(holder, 0)[1] == 0
    finally:
        for descriptor in (reader, writer, ends, end):
            os.close(descriptor)
        shutil.rmtree(folder)


def hold(folder, while_held, waiting=lambda _: None):
    with lock.measuring("it", waiting=waiting, folder=folder):
        while_held()


def forked(uid, action):
    """Run a function in a child process as another user; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setgid(uid)
        os.setuid(uid)
        action()
        status = 0
    finally:
        os._exit(status)


def test_root_locks_where_only_root_can_write(tmp_path, monkeypatch):
    mine, all_ = tmp_path / "run", tmp_path / "lock"
    mine.mkdir()
    all_.mkdir()
    monkeypatch.setattr(lock, "_OF_ROOT", mine)
    monkeypatch.setattr(lock, "_OF_ALL", (all_,))
    with lock.measuring("mine", waiting=print):
        assert len(list(mine.iterdir())) == (os.geteuid() == 0)
        assert len(list(all_.iterdir())) == (os.geteuid() != 0)


def test_the_text_of_another_holder_is_made_printable(tmp_path, start_holder):
    holder = start_holder(HOLDER.replace("run other", "a\x1b[2Jb"))
    messages = []

    def waiting(text):
        messages.append(text)
        holder.stdin.close()

    with lock.measuring("mine", waiting=waiting, folder=tmp_path):
        assert holder.wait(10) == 0
    assert messages == [f"process {holder.pid}: a?[2Jb"]


def test_a_version_is_cached_until_the_program_changes(tmp_path, monkeypatch):
    program, asked = tmp_path / "tool", tmp_path / "asked"

    def install(version):
        program.write_text(f"#!/bin/sh\necho >>{asked}\necho tool {version}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    install("1.0")
    assert [tools.version_text("tool") for _ in range(3)] == ["tool 1.0\n"] * 3
    assert asked.read_text() == "\n"
    install("1.0.1")
    assert tools.version_text("tool") == "tool 1.0.1\n"


def test_programs_asked_ahead_answer_side_by_side_and_once(tmp_path, monkeypatch):
    asked = tmp_path / "asked"
    for name, other in (("one", "two"), ("two", "one")):
        # Each waits for the other's start, so one after the other they would fail.
        (tmp_path / name).write_text(
            f"#!/bin/sh\necho {name} >>{asked}\ni=0\n"
            f"until grep -q {other} {asked}; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ] || exit 1\n"
            f"done\necho {name} 1.0\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    tools.ask_ahead(("one", "--version"), ("two", "--version"), ("absent", "--version"))
    assert [tools.version_text(name) for name in ("one", "two", "one")] == [
        "one 1.0\n",
        "two 1.0\n",
        "one 1.0\n",
    ]
    assert sorted(asked.read_text().split()) == ["one", "two"]
    with pytest.raises(HostError, match="absent is not installed"):
        tools.version_text("absent")
