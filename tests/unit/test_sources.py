import os
import shutil
import subprocess
from pathlib import Path

import faketree
import pytest

from labctl.errors import HostError, UserError
from labctl.experiments import provenance
from labctl.kernels.sources import File, open_source


@pytest.fixture
def state(tmp_path):
    return tmp_path / ".labctl"


def test_a_package_that_is_not_installed_is_named_with_what_to_do(state):
    with pytest.raises(HostError, match=r"apt-get install linux-source-0\.0") as caught:
        open_source("debian:linux-source-0.0", state)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize("text", ["dir:/nonexistent", "tar:/x", "linux"])
def test_what_is_no_source_is_refused(text, state):
    with pytest.raises(UserError):
        open_source(text, state)


def test_an_archive_is_hashed_by_content_and_remembered_by_time(tmp_path, state, monkeypatch):
    source = open_source(faketree.pack(tmp_path, monkeypatch), state)
    first = source.hash()
    path = tmp_path / "usr-src/linux-fake.tar.xz"
    info = path.stat()
    path.write_bytes(bytes(info.st_size))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert source.hash() == first  # of the same size and time: not read again
    os.utime(path)
    assert source.hash() != first


def test_an_archive_is_unpacked_once(tmp_path, state, monkeypatch):
    source = open_source(faketree.pack(tmp_path, monkeypatch), state)
    folder = state / "tree/src"
    source.fill(folder, ())
    assert (folder / "mm/memory.c").read_text() == faketree.FILES["mm/memory.c"]
    (folder / "mm/memory.c").write_text("mine")
    source.fill(folder, ())
    assert (folder / "mm/memory.c").read_text() == "mine"
    assert [p.name for p in folder.parent.iterdir()] == ["src"]


def test_a_half_unpacked_archive_is_never_used(tmp_path, state, monkeypatch):
    source = open_source(faketree.pack(tmp_path, monkeypatch), state)
    path = tmp_path / "usr-src/linux-fake.tar.xz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    folder = state / "tree/src"
    (folder.parent / "unpacking-killed").mkdir(parents=True)
    with pytest.raises(HostError, match="cannot be unpacked"):
        source.fill(folder, ())
    assert list(folder.parent.iterdir()) == []
    path.write_bytes(whole)
    source.fill(folder, ())
    assert (folder / "Kbuild").is_file()


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


@pytest.fixture(params=["git", "plain"])
def mine(request, tmp_path):
    folder = faketree.write(tmp_path / "mine")
    (folder / ".gitignore").write_text("*.o\n.config\n")
    if request.param == "git":
        git(folder, "init", "-q")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "all")
    return folder


def edit(folder):
    (folder / "mm/memory.c").write_text("edited\n")


def edit_keeping_size_and_time(folder):
    path = folder / "mm/memory.c"
    info = path.stat()
    path.write_text(path.read_text().replace("zap", "zip"))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def add(folder):
    (folder / "mm/new.c").write_text("new\n")


def remove(folder):
    (folder / "mm/memory.c").unlink()


def rename(folder):
    (folder / "mm/memory.c").rename(folder / "mm/memory2.c")


def make_executable(folder):
    (folder / "scripts/cc.sh").chmod(0o755)


@pytest.mark.parametrize(
    "change", [edit, edit_keeping_size_and_time, add, remove, rename, make_executable]
)
def test_every_change_of_a_folder_changes_its_hash(mine, state, change):
    source = open_source(f"dir:{mine}", state)
    before = source.hash()
    assert source.hash() == before
    change(mine)
    after = source.hash()
    assert after != before
    assert open_source(f"dir:{mine}", state / "another").hash() == after


def test_what_a_build_of_the_users_leaves_is_not_source(mine, state, tmp_path):
    source = open_source(f"dir:{mine}", state)
    before = source.hash()
    for name in ("mm/memory.o", ".config"):
        (mine / name).write_text("made")
    assert source.hash() == before
    source.fill(tmp_path / "tree/src", ())
    assert not (tmp_path / "tree/src/.config").exists()
    assert not (tmp_path / "tree/src/mm/memory.o").exists()
    assert not (tmp_path / "tree/src/.git").exists()


def test_nothing_is_written_into_the_users_folder(mine, state, tmp_path):
    def snapshot():
        paths = [p for p in mine.rglob("*") if p.is_file()]
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in paths}

    os.utime(mine / "mm/memory.c", (1000, 1000))  # so that git finds its index stale
    before = snapshot()
    source = open_source(f"dir:{mine}", state)
    source.hash()
    source.fill(tmp_path / "tree/src", ())
    provenance.describe(mine)
    assert snapshot() == before


def test_a_file_that_was_only_touched_is_no_change(mine, state):
    source = open_source(f"dir:{mine}", state)
    before, name = source.hash(), provenance.describe(mine)
    os.utime(mine / "mm/memory.c", (1000, 1000))
    assert source.hash() == before
    assert provenance.describe(mine) == name
    edit(mine)
    assert provenance.describe(mine) == (name and f"{name}-dirty")


def test_staging_changes_no_hash(mine, state):
    source = open_source(f"dir:{mine}", state)
    add(mine)
    edit(mine)
    before = source.hash()
    if (mine / ".git").exists():
        git(mine, "add", "-A")
    assert source.hash() == before


def test_a_copy_follows_the_folder_and_what_is_equal_keeps_its_time(mine, state, tmp_path):
    source = open_source(f"dir:{mine}", state)
    copy = tmp_path / "tree/src"
    source.fill(copy, ())
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}
    edit(mine)
    (mine / "init/main.c").touch()
    (mine / "Kconfig").unlink()
    add(mine)
    source.fill(copy, ())
    assert (copy / "mm/memory.c").read_text() == "edited\n"
    assert (copy / "mm/new.c").is_file()
    assert not (copy / "Kconfig").exists()
    changed = {copy / "mm/memory.c", copy / "Kconfig"}
    assert all(p.stat().st_mtime_ns == t for p, t in before.items() if p not in changed)
    assert (copy / "mm/memory.c").stat().st_mtime_ns > before[copy / "mm/memory.c"]


def test_a_copy_has_the_time_of_the_copying(mine, state, tmp_path):
    old = mine / "mm/memory.c"
    os.utime(old, (1000, 1000))
    open_source(f"dir:{mine}", state).fill(tmp_path / "tree/src", ())
    assert (tmp_path / "tree/src/mm/memory.c").stat().st_mtime > 1000


def test_what_is_left_to_the_caller_stays(mine, state, tmp_path):
    source = open_source(f"dir:{mine}", state)
    copy = tmp_path / "tree/src"
    source.fill(copy, ())
    (copy / "mm/memory.c").write_text("patched")
    (copy / "mm/brought.c").write_text("brought")
    source.fill(copy, {"mm/memory.c", "mm/brought.c"})
    assert (copy / "mm/memory.c").read_text() == "patched"
    assert (copy / "mm/brought.c").is_file()
    source.fill(copy, ())
    assert (copy / "mm/memory.c").read_text() == faketree.FILES["mm/memory.c"]
    assert not (copy / "mm/brought.c").exists()


def test_links_are_copied_as_links(mine, state, tmp_path):
    (mine / "link").symlink_to("mm/memory.c")
    source = open_source(f"dir:{mine}", state)
    before = source.hash()
    source.fill(tmp_path / "tree/src", ())
    assert (tmp_path / "tree/src/link").readlink() == Path("mm/memory.c")
    (mine / "link").unlink()
    (mine / "link").symlink_to("init/main.c")
    assert source.hash() != before


def test_a_folder_gives_single_files(mine, state):
    source = open_source(f"dir:{mine}", state)
    assert source.original("Kbuild") == File(b"")
    assert source.original("no/such") is None


def test_two_folders_do_not_share_a_tree(mine, state, tmp_path):
    other = shutil.copytree(mine, tmp_path / "other")
    assert open_source(f"dir:{mine}", state).key != open_source(f"dir:{other}", state).key
