import errno
import os
import shutil
import subprocess
from pathlib import Path

import faketree
import pytest

from labctl import proc
from labctl.errors import HostError, UserError
from labctl.kernels import folder
from labctl.kernels.archive import Archive
from labctl.kernels.sources import open_source
from labctl.kernels.treefiles import File
from labctl.nightly import commits


@pytest.fixture
def state(tmp_path):
    return tmp_path / ".labctl"


def test_a_package_that_is_not_installed_is_named_with_what_to_do(state):
    with pytest.raises(HostError, match=r"apt-get install linux-source-0\.0") as caught:
        open_source("debian:linux-source-0.0", state)
    assert caught.value.exit_status == 3


def test_a_package_is_taken_from_the_system_first_and_else_from_the_environment(
    tmp_path, state, monkeypatch
):
    monkeypatch.setattr("labctl.kernels.sources.UNPACKED_FOLDER", tmp_path / "venv/src")
    name = faketree.pack(tmp_path, monkeypatch)
    system = tmp_path / "usr-src/linux-fake.tar.xz"
    own = tmp_path / "venv/src/linux-fake.tar.xz"
    own.parent.mkdir(parents=True)
    shutil.copy(system, own)
    assert open_source(name, state) == Archive(system, state)
    system.unlink()
    assert open_source(name, state) == Archive(own, state)
    own.unlink()
    with pytest.raises(HostError, match="linux-fake is not installed") as caught:
        open_source(name, state)
    assert "make backports" in caught.value.hint


@pytest.mark.parametrize("text", ["dir:/nonexistent", "tar:/x", "linux"])
def test_what_is_no_source_is_refused(text, state):
    with pytest.raises(UserError):
        open_source(text, state)


def test_an_archive_is_hashed_by_content_and_remembered_by_its_times(tmp_path, state, monkeypatch):
    source = open_source(faketree.pack(tmp_path, monkeypatch), state)
    first = source.hash()
    path = tmp_path / "usr-src/linux-fake.tar.xz"
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)
        assert source.hash() == first  # not read again
    info = path.stat()
    path.write_bytes(bytes(info.st_size))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert source.hash() != first


def test_an_archive_that_is_replaced_while_it_is_unpacked_is_not_used(tmp_path, state, monkeypatch):
    source = open_source(faketree.pack(tmp_path, monkeypatch), state)
    run = proc.run

    def replace(argv, **more):
        (tmp_path / "usr-src/linux-fake.tar.xz").touch()
        faketree.pack(tmp_path, monkeypatch, **{"mm/memory.c": "another\n"})
        return run(argv, **more)

    monkeypatch.setattr(proc, "run", replace)
    with pytest.raises(HostError, match="changed while it was unpacked"):
        source.fill(state / "tree/src", ())
    assert not (state / "tree/src").exists()


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


def git(tree, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", tree, *identity, *words], check=True, capture_output=True)


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
    commits.describe(mine)
    assert snapshot() == before


def test_a_file_that_was_only_touched_is_no_change(mine, state):
    source = open_source(f"dir:{mine}", state)
    before, name = source.hash(), commits.describe(mine)
    os.utime(mine / "mm/memory.c", (1000, 1000))
    assert source.hash() == before
    assert commits.describe(mine) == name
    edit(mine)
    assert commits.describe(mine) == (name and f"{name}-dirty")


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


@pytest.fixture
def tree(tmp_path):
    """A work tree of git with a commit."""
    tree = faketree.write(tmp_path / "tracked")
    commit(tree)
    return tree


def commit(tree):
    git(tree, "init", "-q")
    git(tree, "add", "-A", "-f")
    git(tree, "commit", "-qm", "all")


def copied(tree, state, tmp_path):
    """Return the hash of a tree and what its copy holds."""
    source = open_source(f"dir:{tree}", state)
    copy = tmp_path / "copied/src"
    found = source.hash()
    assert source.fill(copy, ()) == found
    return found, {
        str(p.relative_to(copy)): p.read_bytes().decode() for p in copy.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
def test_edits_that_git_overscans_count(tree, state, tmp_path, flag):
    before, _ = copied(tree, state, tmp_path)
    git(tree, "update-index", flag, "mm/memory.c")
    edit(tree)
    after, files = copied(tree, state, tmp_path)
    assert after != before
    assert files["mm/memory.c"] == "edited\n"


def test_what_git_converts_counts_as_it_is_in_the_work_tree(tree, state, tmp_path):
    (tree / ".gitattributes").write_text("*.c text\n")
    commit(tree)
    before, _ = copied(tree, state, tmp_path)
    path = tree / "mm/memory.c"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    after, files = copied(tree, state, tmp_path)
    assert after != before
    assert "\r\n" in files["mm/memory.c"]


@pytest.mark.parametrize("tracked", [True, False])
def test_a_repository_within_the_tree_is_part_of_it(tree, state, tmp_path, tracked):
    inner = tree / "drivers/mine"
    inner.mkdir(parents=True)
    (inner / "mine.c").write_text("one\n")
    (inner / ".gitignore").write_text("*.log\n")
    (inner / "a.log").write_text("noise")
    git(inner, "init", "-q")
    git(inner, "add", "-A")
    git(inner, "commit", "-qm", "mine")
    if tracked:
        git(tree, "add", "drivers/mine")
    before, files = copied(tree, state, tmp_path)
    assert files["drivers/mine/mine.c"] == "one\n"
    assert "drivers/mine/a.log" not in files
    (inner / "mine.c").write_text("two\n")
    after, files = copied(tree, state, tmp_path)
    assert after != before
    assert files["drivers/mine/mine.c"] == "two\n"


def absolute(path):
    return path


def relative(path):
    return Path("../..") / path.name


@pytest.mark.parametrize("target", [absolute, relative])
@pytest.mark.parametrize("kind", ["git", "plain"])
def test_links_that_lead_out_stand_for_what_is_there(state, tmp_path, target, kind):
    tree = faketree.write(tmp_path / "linked")
    if kind == "git":
        commit(tree)
    (tmp_path / "shared.h").write_text("one\n")
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "mod.c").write_text("one\n")
    (folder / "same.c").symlink_to("mod.c")
    (folder / "back").symlink_to(tree)
    (tree / "mm/shared.h").symlink_to(target(tmp_path / "shared.h"))
    (tree / "mm/module").symlink_to(target(folder))
    hashes = []
    for path in (None, tmp_path / "shared.h", folder / "mod.c"):
        if path:
            path.write_text("two\n")
        found, files = copied(tree, state, tmp_path)
        hashes.append(found)
    assert len(set(hashes)) == 3
    assert (files["mm/shared.h"], files["mm/module/mod.c"]) == ("two\n", "two\n")
    assert (tmp_path / "copied/src/mm/module/same.c").readlink() == Path("mod.c")
    assert not (tmp_path / "copied/src/mm/shared.h").is_symlink()


def test_a_link_to_too_much_is_refused(tree, state, tmp_path, monkeypatch):
    monkeypatch.setattr("labctl.kernels.listing._MOST_LINKED", 3)
    (tmp_path / "much").mkdir()
    for number in range(4):
        (tmp_path / "much" / str(number)).touch()
    (tree / "all").symlink_to(tmp_path / "much")
    with pytest.raises(UserError, match="all: link leads to a folder with more than 3 files"):
        open_source(f"dir:{tree}", state).hash()


def test_a_folder_that_became_a_link_is_one(tree, state, tmp_path):
    (tree / "init").rename(tree / "start")
    (tree / "init").symlink_to("start")
    _, files = copied(tree, state, tmp_path)
    assert (tmp_path / "copied/src/init").readlink() == Path("start")
    assert "start/main.c" in files
    (tree / "init").unlink()
    (tree / "start").rename(tree / "init")
    _, files = copied(tree, state, tmp_path)
    assert "init/main.c" in files
    assert "start/main.c" not in files


def test_a_tracked_config_does_not_keep_make_out(tree, state, tmp_path):
    for name in (".config", "include/config/auto.conf", "arch/x86/include/generated/a.h"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("made\n")
    commit(tree)
    copy = tmp_path / "copied/src"
    copy.mkdir(parents=True)
    (copy / ".config").touch()  # of an older labctl, which copied it
    (copy.parent / "copied.json").write_text('{".config": [0, 0, 0, 0]}')
    _, files = copied(tree, state, tmp_path)
    assert sorted(files) == sorted(faketree.FILES)


def test_a_file_that_changes_while_it_is_copied_is_reported(mine, state, tmp_path, monkeypatch):
    source = open_source(f"dir:{mine}", state)
    scan = folder.Folder._scan

    def then_edit(self):
        scan(self)
        edit(mine)

    monkeypatch.setattr(folder.Folder, "_scan", then_edit)
    with pytest.raises(UserError, match=r"mm/memory\.c: source changed while it was read"):
        source.fill(tmp_path / "tree/src", ())


def test_a_patched_file_that_changes_while_it_is_read_is_reported(mine, state):
    source = open_source(f"dir:{mine}", state)
    source.hash()
    edit(mine)
    with pytest.raises(UserError, match=r"mm/memory\.c: source changed while it was read"):
        source.original("mm/memory.c")


def test_a_file_of_this_moment_is_hashed_again_next_time(mine, state, monkeypatch):
    def remembered():
        open_source(f"dir:{mine}", state).hash()
        memory = state / "sources" / f"{open_source(f'dir:{mine}', state).key}.json"
        return memory.exists() and memory.read_text().count("mm/memory.c")

    assert not remembered()
    monkeypatch.setattr(folder, "_RACY_NANOSECONDS", -(10**15))
    assert remembered()


def test_each_file_is_scanned_once(tree, state, monkeypatch):
    monkeypatch.setattr(folder, "_RACY_NANOSECONDS", -(10**15))
    source = open_source(f"dir:{tree}", state)
    source.hash()
    scans = []
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: scans.append(str(path)) or lstat(path))
    source.hash()
    assert scans.count(f"{tree}/mm/memory.c") == 1


def test_a_name_that_is_not_utf_8_is_copied_and_hides_no_edit(tree, state, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_RACY_NANOSECONDS", -(10**15))
    odd = tree / os.fsdecode(b"mm/odd\xe9.c")
    odd.write_text("one\n")
    first, files = copied(tree, state, tmp_path)
    assert files[os.fsdecode(b"mm/odd\xe9.c")] == "one\n"
    odd.write_text("two\n")
    assert copied(tree, state, tmp_path)[0] != first


def test_what_is_no_file_is_no_source(mine, state, tmp_path):
    before, _ = copied(mine, state, tmp_path)
    os.mkfifo(mine / "mm/pipe")
    assert copied(mine, state, tmp_path)[0] == before


def test_an_edited_copy_is_put_right(mine, state, tmp_path):
    _, before = copied(mine, state, tmp_path)
    (tmp_path / "copied/src/mm/memory.c").write_text("debugging\n")
    assert copied(mine, state, tmp_path)[1] == before


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
def test_a_commit_with_edits_that_git_overscans_is_dirty(tree, flag):
    git(tree, "update-index", flag, "mm/memory.c", "Kbuild")
    clean = commits.describe(tree)
    assert not clean.endswith("-dirty")
    edit(tree)
    assert commits.describe(tree) == f"{clean}-dirty"


@pytest.mark.parametrize("where", ["on a disk without modes", "elsewhere"])
def test_a_mode_is_an_edit_where_files_have_one(tree, where):
    """On a disk without modes each file is executable, and git reports so in the config."""
    clean = commits.describe(tree)
    git(tree, "config", "core.fileMode", "false")
    (tree / "mm/memory.c").chmod(0o755)
    if where == "elsewhere":
        assert commits.describe(tree) == f"{clean}-dirty"
    else:
        (tree / ".git/HEAD").chmod(0o755)
        assert commits.describe(tree) == clean


def test_a_folder_that_cannot_be_read_is_named(state, tmp_path, monkeypatch):
    plain = faketree.write(tmp_path / "plain")
    scandir = os.scandir

    def refuse(place):
        if place.endswith("/mm/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"plain/mm/: source folder cannot be read: Permission"):
        open_source(f"dir:{plain}", state).hash()
