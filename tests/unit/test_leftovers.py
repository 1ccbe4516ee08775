"""What a killed labctl leaves in the state folder, and the next one removes."""

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from labctl import files
from labctl.errors import HostError
from labctl.guests import locks, scratch
from labctl.host import leftovers, state
from labctl.lab.topology import Topology

KILLED = """
import os, signal, sys; from pathlib import Path
from labctl.host import state
with getattr(state, sys.argv[2])(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / ".labctl"
    state.claim(folder)
    return folder


def killed(folder, use="used"):
    """Let a labctl be killed while it works in the folder."""
    subprocess.run([sys.executable, "-c", KILLED, folder, use], check=False, timeout=60)


def left(folder):
    """Write what a labctl leaves that is killed at a bad moment; return the paths."""
    guest = folder / "runs" / "1" / "guests" / "e-000-stock"
    guest.mkdir(parents=True)
    found = [files.unfinished(folder / "images" / "0" / "image.json"), guest / "swap.disk"]
    found.append(files.unfinished(folder / "trees" / "key" / "steps.json"))
    for path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    removed = folder / "images" / f"1{files.REMOVED}"
    (removed / "inner").mkdir(parents=True)
    place = os.open(guest, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(f"/proc/self/fd/{place}/line.sock")  # the whole path can be too long
    os.close(place)
    return [*found, removed, guest / "line.sock"]


@pytest.mark.parametrize("use", [state.used, state.cleared])
def test_the_next_labctl_removes_what_a_killed_one_left(folder, use):
    paths = left(folder)
    kept = [folder / "images" / "a.tmp", folder / "guests" / "stock" / "line.sock"]
    kept.append(folder / "trees" / "key" / "source" / paths[0].name)
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    killed(folder)
    with use(folder):
        assert not [path for path in paths if path.exists()]
    assert [path.exists() for path in kept] == [True] * 3
    assert (folder / "runs" / "1" / "guests" / "e-000-stock").is_dir()


def test_the_next_labctl_removes_what_a_killed_clean_left(folder):
    killed(folder, "cleared")
    paths = left(folder)  # what it could not remove any more
    with state.used(folder):
        assert not [path for path in paths if path.exists()]


@pytest.mark.parametrize("use", [state.used, state.cleared])
def test_the_first_labctl_after_a_boot_removes_what_is_left(folder, use):
    """A power cut can lose the byte that says that a labctl began."""
    with state.used(folder):
        paths = left(folder)
    os.utime(folder / "state.lock", (1, 1))
    with use(folder):
        assert not [path for path in paths if path.exists()]
    paths[0].touch()
    with use(folder):
        assert paths[0].exists(), "once after a boot"


def test_nothing_is_searched_unless_one_was_killed(folder):
    with state.used(folder):
        paths = left(folder)
    with state.used(folder):
        assert all(path.exists() for path in paths)


def test_the_next_labctl_removes_an_unfinished_file_of_a_read_only_folder(folder, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    images = folder / "images"
    with state.used(folder), monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refused)
        patched.setattr(Path, "unlink", refused)
        with pytest.raises(PermissionError):
            files.replace(images / "image.json", b"{}")
        with pytest.raises(PermissionError), files.replacing(images / "config") as partial:
            partial.touch()
    assert len(list(images.iterdir())) == 2
    with state.used(folder):
        assert not list(images.iterdir())


def test_what_a_sweep_cannot_remove_is_left_to_the_next(folder, monkeypatch):
    killed(folder)
    paths = left(folder)
    with monkeypatch.context() as patched:

        def refused(path):
            raise HostError("cannot be removed: Permission denied", where=str(path))

        patched.setattr(files, "remove", refused)
        with state.used(folder):
            assert all(path.exists() for path in paths)
    with state.used(folder):
        assert not [path for path in paths if path.exists()]


def test_the_next_labctl_removes_what_one_could_not_remove(folder, monkeypatch):
    """As in a folder that became read-only; root may write to any."""

    def refused(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    with state.used(folder):
        paths = left(folder)
        monkeypatch.setattr(Path, "unlink", refused)
        with pytest.raises(PermissionError):
            files.unlink(paths[-1])
        monkeypatch.undo()
    with state.used(folder):
        assert not any(path.exists() for path in paths)
    paths[0].touch()
    with state.used(folder):
        assert paths[0].exists()


def test_nothing_is_removed_while_another_labctl_runs(folder):
    paths = left(folder)
    killed(folder)
    lock = os.open(folder / "state.lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with state.used(folder):
            assert all(path.exists() for path in paths)
    finally:
        os.close(lock)
    with state.used(folder):
        assert not any(path.exists() for path in paths)


def test_a_kill_is_noted_although_another_labctl_ends(folder):
    paths = left(folder)
    with state.used(folder):
        killed(folder)
    with state.used(folder):
        assert not any(path.exists() for path in paths)


def test_the_last_of_several_removes_the_mark(folder):
    lock = folder / "state.lock"
    with state.used(folder):
        with state.used(folder):
            assert lock.stat().st_size
        assert lock.stat().st_size
    assert lock.stat().st_size == 0


def test_the_disks_of_guests_have_the_names_that_are_removed():
    topology = Topology.model_validate(
        {
            "nodes": 1,
            "memory_per_node": "64MiB",
            "disks": ["1MiB", "1MiB"],
            "swap": {"disk": "1MiB"},
        }
    )
    names = [disk.file for disk in scratch.disks_of(topology)]
    assert len(names) == 3
    assert all(leftovers._DISK.fullmatch(name) for name in names)


def test_the_rest_of_a_removed_guest_goes_with_the_next_down(tmp_path):
    rest = tmp_path / f"stock{files.REMOVED}"
    rest.mkdir()
    (tmp_path / "other").mkdir()
    locks.tidy(tmp_path)
    assert not rest.exists()
    assert (tmp_path / "other").is_dir()


def test_a_name_of_an_unfinished_file_is_known():
    path = Path("/a/b.json")
    assert files.is_unfinished(files.unfinished(path))
    assert files.unfinished(path).parent == path.parent
    assert not any(map(files.is_unfinished, (path, Path("x.tmp"), Path("x.1234.tmp"))))
