"""Guests that stay, with a QEMU that only says that it is ready."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import GuestError, HostError, UserError
from labctl.guests.fleet import Fleet
from labctl.guests.qemu import GuestSpec
from labctl.kernels.build import Image
from labctl.kernels.hashed import Hashed
from labctl.lab_models import Distances, Topology

QEMU = """\
#!/bin/sh
case "$*" in
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
    return fleet._record(name)["pid"]


def test_up_twice_changes_nothing(fleet):
    specs = [spec(fleet), spec(fleet, "patched", ssh_key=Path("key"), transport="ssh")]
    assert fleet.up(specs, SECONDS) == {"stock": "started", "patched": "started"}
    before = pid(fleet), pid(fleet, "patched")
    assert fleet.up(specs, SECONDS) == {"stock": "unchanged", "patched": "unchanged"}
    assert (pid(fleet), pid(fleet, "patched")) == before


def test_a_kernel_that_changed_is_rebooted_and_the_others_are_not(fleet):
    fleet.up([spec(fleet), spec(fleet, "patched")], SECONDS)
    old, kept = pid(fleet, "patched"), pid(fleet)
    done = fleet.up([spec(fleet), spec(fleet, "patched", "2")], SECONDS)
    assert done == {"stock": "unchanged", "patched": "restarted: its kernel changed"}
    assert pid(fleet) == kept
    assert pid(fleet, "patched") != old
    assert not Path(f"/proc/{old}").exists() or "Z" in Path(f"/proc/{old}/stat").read_text()


def test_what_else_changed_is_named(fleet):
    fleet.up([spec(fleet)], SECONDS)
    (done,) = fleet.up([spec(fleet, topology=Topology(nodes=2))], SECONDS).values()
    assert done == "restarted: topology changed"


def test_a_guest_that_died_is_started_again(fleet):
    fleet.up([spec(fleet)], SECONDS)
    fleet._machine(fleet._record("stock")).end()
    assert not fleet.running("stock")
    assert fleet.up([spec(fleet)], SECONDS) == {"stock": "started"}
    assert fleet.running("stock")


def test_of_guests_that_do_not_come_up_none_stays_and_what_ran_goes_on(fleet):
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
    with pytest.raises(HostError, match="initramfs: the file changed"):
        fleet.up([spec(fleet, hash_="2", files=files), spec(fleet, "other")], SECONDS)
    assert pid(fleet) == before
    assert fleet.running("stock")
    assert fleet.names() == ["stock"]


def test_a_guest_that_is_not_what_was_asked_for_does_not_stay(fleet):
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


def test_a_record_of_before_transports_is_still_read(fleet):
    from labctl.guests import fleet as module

    data = module._spec_as_json(spec(fleet))
    for key in ("transport", "ssh_key"):
        del data[key]
    assert module._spec_from_json(data) == spec(fleet)
    data = module._spec_as_json(replace(spec(fleet), ssh_key=Path("k")))
    assert module._spec_from_json(data).ssh_key == Path("k")


def test_a_pid_that_is_another_process_now_is_left_alone(fleet):
    fleet.up([spec(fleet)], SECONDS)
    record = fleet.spec_folder("stock") / "guest.json"
    old = pid(fleet)
    record.write_text(record.read_text().replace('"started_ticks": ', '"started_ticks": 1'))
    assert not fleet.running("stock")
    fleet.down("stock")
    os.kill(old, signal.SIGKILL)  # raises if it was ended
