"""Guests that stay, with a QEMU that only says that it is ready."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from labctl import process_table
from labctl.cli import labctl
from labctl.errors import GuestError, HostError, UserError
from labctl.guests import processes, records
from labctl.guests.fleet import Fleet
from labctl.guests.guest import Guest
from labctl.guests.qemu import GuestSpec
from labctl.guests.records import Record
from labctl.kernels.build import Image
from labctl.kernels.hashed import Hashed
from labctl.lab.topology import Distances, Topology

QEMU = """\
#!/bin/sh
case "$*" in
*--version*) exit ;;
*broken*) exit 1;;
esac
nodes=$(printf '%s\\n' "$@" | grep -c '^node,')
for node in $(seq 0 $((nodes - 1))); do
  row=$(seq 1 "$nodes" | sed "s/.*/20/; $((node + 1))s/.*/10/" | paste -sd,)
  echo "[    1.0] labctl: node $node cpus=$node memory_kib=1572480 distances=$row"
done >console.log
echo '[    1.0] labctl: ready boot=0a1b2c3d-0000-4000-8000-0123456789ab' >>console.log
exec sleep 1000
"""
SECONDS = 60.0


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "qemu-system-x86_64").write_text(QEMU)
    (tools / "qemu-system-x86_64").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    fleet = Fleet(tmp_path / "guests")
    yield fleet
    for name in fleet.names():
        fleet.down(name)


def spec(fleet, name="stock", hash_="1", **more):
    image = Image(name, Path("bz"), hash_, "0", None, ("p",), Path("config"), "6.1", "gcc")
    facts = {
        "name": name,
        "image": image,
        "topology": Topology(),
        "initramfs": Path("initramfs"),
        "accel": "tcg",
        "folder": fleet.spec_folder(name),
    }
    return GuestSpec(**(facts | more))


def pid(fleet, name="stock"):
    return json.loads((fleet.spec_folder(name) / "guest.json").read_text())["pid"]


def test_up_twice_changes_nothing(fleet):
    specs = [spec(fleet), spec(fleet, "patched", ssh_key=Path("key"), transport="ssh")]
    assert fleet.up(specs, SECONDS) == {"stock": "started", "patched": "started"}
    before = pid(fleet), pid(fleet, "patched")
    assert fleet.up(specs, SECONDS) == {"stock": "unchanged", "patched": "unchanged"}
    assert (pid(fleet), pid(fleet, "patched")) == before


def test_the_start_of_a_guest_waits_for_no_disk(fleet, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("a file was synced"))
    assert fleet.up([spec(fleet)], SECONDS) == {"stock": "started"}


def test_a_kernel_that_changed_is_rebooted_and_the_others_are_not(fleet):
    fleet.up([spec(fleet), spec(fleet, "patched")], SECONDS)
    old, kept = pid(fleet, "patched"), pid(fleet)
    done = fleet.up([spec(fleet), spec(fleet, "patched", "2")], SECONDS)
    assert done == {"stock": "unchanged", "patched": "restarted: its kernel changed"}
    assert pid(fleet) == kept
    assert pid(fleet, "patched") != old
    assert not Path(f"/proc/{old}").exists() or "Z" in Path(f"/proc/{old}/stat").read_text()


def test_what_else_changed_is_named(fleet, tmp_path):
    (tmp_path / "file").write_text("of an image")
    files = (Hashed.of(tmp_path / "file"),)  # of which the record says nothing
    fleet.up([spec(fleet, files=files)], SECONDS)
    (done,) = fleet.up([spec(fleet, files=files, topology=Topology(nodes=2))], SECONDS).values()
    assert done == "restarted: topology changed"


def test_a_guest_that_died_is_started_again(fleet):
    fleet.up([spec(fleet)], SECONDS)
    (machine,) = fleet._machines("stock")
    machine.end()
    assert not fleet.running("stock")
    assert fleet.up([spec(fleet)], SECONDS) == {"stock": "started"}
    assert fleet.running("stock")


def test_guests_that_fail_to_boot_are_stopped_and_running_ones_stay(fleet):
    fleet.up([spec(fleet)], SECONDS)
    before = pid(fleet)
    bad = spec(fleet, "patched", command_line="broken")
    with pytest.raises(GuestError):
        fleet.up([spec(fleet), spec(fleet, "third"), bad], SECONDS)
    assert fleet.names() == ["stock"]
    assert pid(fleet) == before


def test_a_damaged_image_ends_no_guest_that_runs(fleet, tmp_path):
    fleet.up([spec(fleet)], SECONDS)
    before = pid(fleet)
    (tmp_path / "initramfs").write_text("whole")
    files = (Hashed.of(tmp_path / "initramfs"),)
    (tmp_path / "initramfs").write_text("who")
    with pytest.raises(HostError, match="initramfs: file changed"):
        fleet.up([spec(fleet, hash_="2", files=files), spec(fleet, "other")], SECONDS)
    assert pid(fleet) == before
    assert fleet.running("stock")
    assert fleet.names() == ["stock"]


def test_a_guest_with_another_topology_is_stopped(fleet):
    asked = Topology(distances=Distances(remote=30))
    with pytest.raises(UserError, match="node 0 to node 1: expected 30, got 20"):
        fleet.up([spec(fleet, topology=asked)], SECONDS)
    assert fleet.names() == []


def test_two_labs_side_by_side_do_not_meet(fleet, tmp_path):
    other = Fleet(tmp_path / "other" / "guests")
    fleet.up([spec(fleet)], SECONDS)
    other.up([spec(other)], SECONDS)
    assert pid(fleet) != pid(other)
    other.down("stock")
    assert fleet.running("stock")
    assert other.names() == []


def test_a_record_without_a_transport_is_still_read(fleet):
    folder = fleet.spec_folder("stock")
    records.write(folder, Record(spec=replace(spec(fleet), ssh_key=Path("k"))))
    assert records.read(folder).spec.ssh_key == Path("k")
    data = json.loads((folder / "guest.json").read_text())
    for key in ("transport", "ssh_key"):
        del data["spec"][key]
    (folder / "guest.json").write_text(json.dumps(data))
    assert records.read(folder).spec == spec(fleet)


def test_a_pid_that_is_another_process_now_is_left_alone(fleet):
    other = subprocess.Popen(["sleep", "100"])
    time.sleep(0.05)  # QEMU starts in another tick of the clock, which are 10 ms apart
    try:
        fleet.up([spec(fleet)], SECONDS)
        (machine,) = fleet._machines("stock")
        record = fleet.spec_folder("stock") / "guest.json"
        content = json.loads(record.read_text())
        machine.end()
        for ticks in (content["started_ticks"], 1, None):
            record.write_text(json.dumps(content | {"pid": other.pid, "started_ticks": ticks}))
            assert not fleet.running("stock")
        fleet.down("stock")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


# --- what goes wrong ------------------------------------------------------------------------------


def qemus(fleet, name="stock"):
    return [found.pid for found in processes.of(fleet.folder).get(name, [])]


def killed(action):
    """Run something that kills its own process, as kill -9 does, in a child."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            action()
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def kill_me(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def test_two_that_start_guests_at_once_start_them_once(fleet):
    done, specs = [], [spec(fleet), spec(fleet, "patched")]
    both = threading.Barrier(2)

    def up():
        both.wait()
        done.append(Fleet(fleet.folder).up(specs, SECONDS))

    threads = [threading.Thread(target=up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    words = sorted(word for each in done for word in each.values())
    assert words == ["started", "started", "unchanged", "unchanged"]
    for name in ("stock", "patched"):
        assert qemus(fleet, name) == [pid(fleet, name)]


def test_a_starter_that_is_killed_before_the_pid_is_on_record_leaves_a_known_guest(
    fleet, monkeypatch
):
    write = records.write
    with monkeypatch.context() as patch:
        patch.setattr(records, "write", lambda *words: kill_me() if words[1].pid else write(*words))
        killed(lambda: fleet.up([spec(fleet)], SECONDS))
    console = fleet.spec_folder("stock") / "console.log"
    while not console.is_file() or "ready" not in console.read_text():
        time.sleep(0.05)  # until then the fake QEMU has programs of its own beside it
    (orphan,) = qemus(fleet)
    (row,) = fleet.status()
    assert (row["name"], row["pid"]) == ("stock", orphan)
    assert fleet.up([spec(fleet)], SECONDS) == {"stock": "unchanged"}
    fleet.down("stock")
    assert process_table.started_ticks(orphan) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\0", b'{"pid": "x", "started_ticks": 1, "spec": {}}']
)
def test_a_torn_record_fails_no_command_and_its_guest_can_be_ended(fleet, content):
    fleet.up([spec(fleet), spec(fleet, "patched")], SECONDS)
    old = pid(fleet)
    (fleet.spec_folder("stock") / "guest.json").write_bytes(content)
    rows = {row["name"]: row for row in fleet.status()}
    assert (rows["stock"]["state"], rows["stock"]["pid"]) == ("unknown", old)
    assert rows["patched"]["release"] == "6.1"
    with pytest.raises(UserError, match="damaged"), fleet.guest("stock"):
        pass
    with fleet.paused():
        pass
    assert fleet.up([spec(fleet)], SECONDS) == {"stock": "restarted: its record was damaged"}
    assert qemus(fleet) == [pid(fleet)] != [old]
    (fleet.spec_folder("stock") / "guest.json").write_bytes(content)
    fleet.down("stock")
    assert qemus(fleet) == []
    assert fleet.names() == ["patched"]


@pytest.mark.parametrize("lost", ["record", "folder"])
def test_a_guest_without_a_record_is_found_and_ended(fleet, lost):
    fleet.up([spec(fleet)], SECONDS)
    old = pid(fleet)
    if lost == "record":
        (fleet.spec_folder("stock") / "guest.json").unlink()
    else:
        shutil.rmtree(fleet.spec_folder("stock"))
    assert fleet.names() == ["stock"]
    assert [row["pid"] for row in fleet.status()] == [old]
    fleet.down("stock")
    assert process_table.started_ticks(old) is None
    assert fleet.names() == []


def test_a_process_in_a_guests_folder_is_no_guest(fleet):
    fleet.up([spec(fleet)], SECONDS)
    looking = subprocess.Popen(["sleep", "100"], cwd=fleet.spec_folder("stock"))
    try:
        assert qemus(fleet) == [pid(fleet)]
        fleet.down("stock")
        assert looking.poll() is None
    finally:
        looking.kill()
        looking.wait()


@pytest.mark.parametrize("name", ["..", ".", "", "../guests/stock", "/etc", "a/b"])
def test_what_is_no_name_is_no_guest(fleet, name):
    fleet.up([spec(fleet)], SECONDS)
    with pytest.raises(UserError):
        fleet.down(name)
    assert fleet.running("stock")


@pytest.fixture
def commands(monkeypatch):
    """Return the commands that a fake monitor of QEMU receives."""
    commands = []
    monkeypatch.setattr(
        Guest, "qmp_status", lambda _: "paused" if commands == ["stop"] else "running"
    )
    monkeypatch.setattr(Guest, "qmp", lambda _, command: commands.append(command))
    monkeypatch.setattr(Guest, "monitor", lambda *_: "")
    return commands


def test_a_guest_that_a_killed_run_had_paused_goes_on_with_the_next_command(fleet, commands):
    fleet.up([spec(fleet)], SECONDS)

    def run():
        with fleet.paused():
            kill_me()

    killed(run)
    commands[:] = ["stop"]  # sent by the child
    Fleet(fleet.folder).recover()
    assert commands == ["stop", "cont"]
    Fleet(fleet.folder).recover()
    assert commands == ["stop", "cont"]


def test_guests_that_a_running_run_has_paused_stay_paused(fleet, commands):
    fleet.up([spec(fleet)], SECONDS)
    with fleet.paused() as names:
        assert names == ["stock"]
        Fleet(fleet.folder).recover()
        assert commands == ["stop"]
    assert commands == ["stop", "cont"]
    Fleet(fleet.folder).recover()
    assert commands == ["stop", "cont"]


def test_exec_does_not_resume_guests_that_a_running_run_has_paused(
    fleet, commands, tmp_path, monkeypatch
):
    monkeypatch.setattr("sys.stdin", None)
    fleet.folder = tmp_path / ".labctl" / "guests"
    (tmp_path / "lab.yaml").write_text(
        "version: 1\nkernels: {stock: {source: debian:linux-source-6.1}}\n"
    )
    fleet.up([spec(fleet)], SECONDS)
    with fleet.paused():
        words = ["exec", "--lab", str(tmp_path / "lab.yaml"), "stock", "true"]
        with pytest.raises(UserError, match="a run is measuring"):
            labctl.main(words, standalone_mode=False)
        assert commands == ["stop"]
    assert commands == ["stop", "cont"]


def test_a_torn_note_of_a_pause_counts_as_one_of_a_killed_run(fleet, commands):
    fleet.up([spec(fleet)], SECONDS)
    (fleet.spec_folder("stock") / "paused.json").write_text("{")
    fleet.recover()
    assert commands == ["cont"]
    (fleet.spec_folder("stock") / "paused.json").write_text("{")
    (machine,) = fleet._machines("stock")
    machine.end()
    fleet.recover()  # nothing to resume
    assert not (fleet.spec_folder("stock") / "paused.json").exists()


def test_a_guest_that_a_killed_gdb_had_paused_is_resumed(fleet, commands):
    fleet.up([spec(fleet)], SECONDS)

    def gdb():
        with fleet.held("stock"):
            kill_me()

    killed(gdb)
    fleet.recover()
    assert commands == ["cont"]


@pytest.mark.parametrize(
    "start",
    [lambda f: f.up([spec(f)], SECONDS), lambda f: f.start(Guest(spec(f)))],
    ids=["up", "start"],
)
def test_a_folder_that_is_no_guests_is_not_removed_for_one(fleet, tmp_path, start):
    theirs = tmp_path / "vms"
    (theirs / "stock").mkdir(parents=True)
    (theirs / "stock" / "disk.img").write_text("x")
    fleet.folder.symlink_to(theirs)
    with pytest.raises(UserError, match="did not create"):
        start(fleet)
    assert (theirs / "stock" / "disk.img").exists()
    assert not qemus(fleet)


def test_nothing_waits_for_a_pipe_in_a_guests_folder(fleet):
    folder = fleet.spec_folder("stock")
    folder.mkdir(parents=True)
    os.mkfifo(folder / "guest.json")
    assert [row["state"] for row in fleet.status()] == ["gone"]
    os.mkfifo(folder / "console.log")
    with contextlib.suppress(OSError):
        fleet.status()
    fleet.down("stock")
    assert not folder.exists()
