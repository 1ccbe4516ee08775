"""The folder of a guest belongs to one labctl at a time."""

from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import BootFailed, HostError
from labctl.guests import locks
from labctl.guests.guest import Guest, GuestSpec
from labctl.kernels.build import Image
from labctl.kernels.hashed import Hashed
from labctl.lab.topology import Topology

VERSION = 'case "$*" in *--version*) exit;; esac\n'
QEMU = f"#!/bin/sh\n{VERSION}exec sleep 60\n"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GuestSpec:
    """A guest whose QEMU sleeps."""
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text(QEMU)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(locks, "_FOLDER_SECONDS", 0.1)
    image = Image("k", tmp_path / "bzImage", "0" * 32, "0", None, (), None, "6.1", "")
    return GuestSpec("k", image, Topology(), tmp_path / "initramfs", "tcg", tmp_path / "guest")


def test_a_second_guest_in_the_same_folder_is_refused(spec: GuestSpec) -> None:
    with (
        Guest(spec),
        pytest.raises(HostError, match="in use by a guest of another labctl"),
        Guest(spec),
    ):
        pass


def test_the_next_guest_finds_the_folder_free(spec: GuestSpec) -> None:
    for _ in range(2):
        with Guest(spec) as running:
            assert running._watchdog.machine is not None
            assert running._watchdog.machine.poll() is None


@pytest.mark.parametrize("damage", ["truncate", "remove", "replace"])
@pytest.mark.parametrize("name", ["bzImage", "initramfs"])
def test_a_guest_of_a_damaged_file_is_never_started(
    spec: GuestSpec, tmp_path: Path, name: str, damage: str
) -> None:
    path = tmp_path / name
    path.write_text("what was built")
    spec = replace(spec, files=(Hashed.of(path),))
    with Guest(spec):
        pass
    if damage == "remove":
        path.unlink()
    else:
        path.write_text("what" if damage == "truncate" else "what was other")
    with pytest.raises(HostError, match=f"{name}: file (changed|cannot be read)"), Guest(spec):
        pass


def test_a_console_that_the_disk_has_no_room_for_is_no_kernel_that_hangs(
    spec: GuestSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Guest(spec) as running:
        monkeypatch.setattr("labctl.files.free_bytes", lambda _: 0)
        with pytest.raises(HostError, match="disk full") as caught:
            running.wait_ready(0.1)
    assert caught.value.where == str(spec.folder)


def test_a_qemu_that_crashes_is_started_again_but_not_for_ever(
    spec: GuestSpec, tmp_path: Path
) -> None:
    program, starts = tmp_path / "bin" / "qemu-system-x86_64", tmp_path / "starts"
    start = f"#!/bin/sh\n{VERSION}echo start >> {starts}\n"

    def boot(end: str) -> str:
        starts.unlink(missing_ok=True)
        program.write_text(start + end)
        with Guest(spec) as running, pytest.raises(BootFailed) as caught:
            running.wait_ready(5)
        return str(caught.value)

    assert "crashed, not the guest's kernel" in boot("kill -SEGV $$\n")
    assert starts.read_text().count("start") == 3
    assert "QEMU exited with status 1" in boot("exit 1\n")  # its words are enough
    assert starts.read_text().count("start") == 1


def test_a_crash_of_qemu_leaves_nothing_of_its_console(spec: GuestSpec, tmp_path: Path) -> None:
    program, once = tmp_path / "bin" / "qemu-system-x86_64", tmp_path / "once"
    program.write_text(
        f"#!/bin/sh\n{VERSION}"
        f"[ -e {once} ] && {{ echo '[ 0.1] Linux version' > console.log; sleep 60; }}\n"
        f"touch {once}\necho '[ 0.1] half of a line' > console.log\nkill -ABRT $$\n"
    )
    with Guest(spec) as running:
        with pytest.raises(BootFailed, match="boot timed out"):
            running.wait_ready(1)
        assert running.console_tail() == ["[ 0.1] Linux version"]
