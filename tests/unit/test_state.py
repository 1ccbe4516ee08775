"""The state folder: which files labctl considers its own, and that it removes only these."""

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from labctl import files, proc
from labctl.cli import labctl
from labctl.errors import ConfigError, HostError, UserError
from labctl.guests.prepare import remove_built
from labctl.host import state, state_folder
from labctl.lab import state as lab_state
from labctl.lab import template
from labctl.lab.load import load
from labctl.lab.use import Use
from labctl.nightly import images
from labctl.series.patch import Series

HARMLESS = (
    ".DS_Store", "._x", ".stignore", ".gitkeep", "Thumbs.db", "notes~", ".notes.swp", "#notes#",
    "lost+found/x", ".Trash-1000/files/x", ".stfolder/x", ".snapshot/x",
)  # fmt: skip
READING = (["status"], ["console", "none"], ["exec", "none", "true"], ["report"], ["down"])

HOLDER = """
import sys
from pathlib import Path
from labctl.host import state
with state.used(Path(sys.argv[1])):
    print("used", flush=True)
    sys.stdin.read()
"""


def lab_of(folder, text=".labctl"):
    folder.mkdir(exist_ok=True)
    (folder / "bzImage").touch()
    (folder / "lab.yaml").write_text(
        f"version: 1\nkernels:\n  stock: {{source: 'image:bzImage'}}\nstate: {text}\n"
    )
    return load(folder / "lab.yaml")


def refusal(folder, text=".labctl"):
    with pytest.raises(ConfigError) as caught:
        lab_of(folder, text)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (4, 8, "state")
    return problem.what


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


@pytest.mark.parametrize("text", [".", "..", "../..", "/", "../lab"])
def test_a_state_folder_that_contains_the_lab_is_rejected(tmp_path, text):
    assert "contains the lab" in refusal(tmp_path / "lab", text)


def test_a_state_folder_that_contains_the_lab_through_a_link_is_rejected(tmp_path):
    real = tmp_path / "real" / "lab"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    lab_of(real)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "bzImage").touch()
    text = (real / "lab.yaml").read_text().replace("state: .labctl", f"state: {tmp_path}/real")
    (real / "lab.yaml").write_text(text)
    (tmp_path / "other" / "lab.yaml").symlink_to(real / "lab.yaml")
    for path in (tmp_path / "link" / "lab.yaml", tmp_path / "other" / "lab.yaml"):
        with pytest.raises(ConfigError, match="contains the lab"):
            load(path)


def test_a_home_folder_is_rejected(tmp_path, monkeypatch):
    home = tmp_path / "homes" / "me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for text in ("~/", "../homes", "../homes/me"):
        assert "home" in refusal(tmp_path / "lab", text)
    assert lab_of(tmp_path / "lab", "~/labctl").state == home / "labctl"


def test_a_mount_point_is_rejected(tmp_path, monkeypatch):
    folder = tmp_path / "disks" / "a disk"
    folder.mkdir(parents=True)
    monkeypatch.setattr(state_folder, "mount_points", lambda: [folder])
    assert "is a mount point" in refusal(tmp_path / "lab", f"{folder}")
    assert "contains a mount point" in refusal(tmp_path / "lab", "../disks")
    assert lab_of(tmp_path / "lab", f"{folder}/labctl")


def test_mount_points_are_read_as_the_kernel_writes_them():
    assert Path("/proc") in state_folder.mount_points()
    assert state_folder._unescaped(rb"/a\040disk\134x") == Path("/a disk\\x")


@pytest.mark.parametrize(
    "name", ["notes", ".ssh/id", "images.old/x", "runs2/x", "lab.yaml.removed/x", "x.json.a.tmp"]
)
def test_a_state_folder_with_foreign_files_is_rejected(tmp_path, name):
    fill(tmp_path / "lab" / ".labctl", "images/1/image.json", name)
    assert f"'{Path(name).parts[0]}'" in refusal(tmp_path / "lab")
    state.claim(tmp_path / "empty")
    fill(tmp_path / "empty", name)  # with a marker too
    assert "did not create" in refusal(tmp_path / "lab", f"{tmp_path}/empty")


def test_a_familiar_name_alone_does_not_make_it_ours(tmp_path):
    fill(tmp_path / "photos", "images/holiday.jpg", "runs/marathon.jpg")
    assert "no marker" in refusal(tmp_path / "lab", "../photos")
    fill(tmp_path / "kinds", "images", "sources.json/x")  # a file, and a folder
    assert "'images', 'sources.json'" in refusal(tmp_path / "lab", "../kinds")
    (tmp_path / "text").write_text("")
    assert "is not a folder" in refusal(tmp_path / "lab", "../text")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".labctl", ("images/x", "trees/x", "state.lock", ".gitignore")),
        ("scratch", ("sources.json", "trees/x", "sources.json.0a1b.tmp")),
        ("scratch", ("runs/1/run.json", "trees.removed/x")),
    ],
)
def test_a_state_folder_without_marker_of_an_old_version_is_accepted(tmp_path, name, content):
    fill(tmp_path / name, *content)
    lab = lab_of(tmp_path / "lab", f"{tmp_path}/{name}")
    remove_built(lab, runs_too=True)
    assert not any((lab.state / folder).exists() for folder in ("images", "trees", "runs"))
    assert state_folder.is_marked(lab.state)


def test_without_our_marker_nothing_is_removed(tmp_path):
    folder = fill(tmp_path / "x", "images/a")
    (folder / lab_state.MARKER).write_text("something else")
    with pytest.raises(HostError):
        state.remove(folder, ["images"])
    (folder / lab_state.MARKER).unlink()
    (tmp_path / "true").write_text(lab_state.MARKER_LINE)
    (folder / lab_state.MARKER).symlink_to(tmp_path / "true")
    with pytest.raises(HostError):
        state.remove(folder, ["images"])
    assert (folder / "images" / "a").exists()


def test_targets_of_links_are_not_removed(tmp_path):
    others = fill(tmp_path / "others", "images/1/bzImage", "trees/1/make.lock")
    lab = lab_of(tmp_path / "lab")
    fill(lab.state, "sources/x")
    for name in ("images", "trees"):
        (lab.state / name).symlink_to(others / name)
    (lab.state / "sources" / "link").symlink_to(others)
    removed = remove_built(lab, runs_too=True)
    assert [path.name for path in removed] == ["images", "sources", "trees"]
    assert sorted(p.name for p in lab.state.iterdir()) == [lab_state.MARKER, lab_state.LOCK]
    assert (others / "images/1/bzImage").exists()
    assert (others / "trees/1/make.lock").exists()


def test_a_killed_clean_leaves_no_partial_folder(tmp_path, monkeypatch):
    lab = lab_of(tmp_path / "lab")
    fill(lab.state, "trees/1/src/a", "trees/1/src/b")

    def killed(path):
        os.unlink(path / "1/src/a")  # noqa: PTH108
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_built(lab, runs_too=False)
    assert not (lab.state / "trees").exists()
    lab = load(lab.path)
    fill(lab.state, "trees/2/src/a")
    remove_built(lab, runs_too=False)
    assert not list(lab.state.glob("trees*"))


def test_a_history_keeps_the_pictures_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_MOST", 1)
    lab = lab_of(tmp_path / "lab")
    theirs = [f"images/{name}" for name in ("holiday.jpg", "0.bak", "c" * 63, "x/y")]
    fill(tmp_path / "history", *theirs)
    for image in ("a" * 64, "b" * 64):
        fill(lab.state, f"images/{image[:32]}/bzImage")
        kernels = {"k": SimpleNamespace(arch=None)}
        record = SimpleNamespace(kernels=kernels, image=lambda _, image=image: image)
        images.keep(lab, tmp_path / "history", record)
    assert images.find(tmp_path / "history", "b" * 64)
    assert all((tmp_path / "history" / name).exists() for name in theirs)


def test_series_steps_are_written_beside_the_target_of_a_link(tmp_path):
    theirs = fill(tmp_path / "theirs", "0001.patch", "sub/x")
    (tmp_path / "step").symlink_to(theirs)
    Series("", ()).write(tmp_path / "step")
    assert (theirs / "0001.patch").exists()
    fill(tmp_path / "other", "sub/x")  # a folder in it is no traceback
    Series("", ()).write(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["series"]


def test_init_follows_no_link(tmp_path):
    fill(tmp_path, "shared.yaml")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "lab.yaml").symlink_to(tmp_path / "shared.yaml")
    fragment = tmp_path / "lab" / template.BASE_CONFIG
    fragment.parent.mkdir(parents=True)
    fragment.symlink_to(tmp_path / "made")
    template.write(tmp_path / "lab", force=True)
    assert (tmp_path / "shared.yaml").read_text() == "x"
    assert not (tmp_path / "made").exists()
    assert (tmp_path / "lab" / "lab.yaml").read_text() == template.text()


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '"\xff'])
def test_a_truncated_json_file_reads_as_none(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    assert files.read_json(tmp_path / "x.json") == {}
    files.write_json(tmp_path / "x.json", {"a": 1})
    assert files.read_json(tmp_path / "x.json") == {"a": 1}


def test_a_file_is_replaced_atomically(tmp_path, monkeypatch):
    fill(tmp_path, "x")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="space"):
            files.replace(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_removal_is_reported(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    fill(tmp_path, "images/a")
    monkeypatch.setattr(files.shutil, "rmtree", refused)
    with pytest.raises(HostError, match="Permission denied"):
        files.remove(tmp_path / "images")


@contextlib.contextmanager
def used_by_another(folder):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "used\n"
    try:
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def test_no_clean_while_another_labctl_works(tmp_path):
    lab = lab_of(tmp_path / "lab")
    with used_by_another(lab.state) as holder:
        fill(lab.state, "images/1/bzImage")
        with state.used(lab.state):
            pass  # beside others
        with pytest.raises(UserError, match=str(holder.pid)):
            remove_built(lab, runs_too=False)
        assert (lab.state / "images/1/bzImage").exists()
    assert remove_built(lab, runs_too=False) == [lab.state / "images"]


def test_the_lock_of_a_state_folder_follows_no_link(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / lab_state.LOCK).symlink_to(tmp_path / "made")
    (tmp_path / "x" / lab_state.MARKER).write_text(lab_state.MARKER_LINE)
    with pytest.raises(HostError), state.used(tmp_path / "x"):
        pass
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", HARMLESS)
def test_files_of_systems_and_editors_are_ignored(tmp_path, name):
    folder = fill(tmp_path / "new", name)
    lab = lab_of(tmp_path / "lab", f"{folder}")
    with state.used(lab.state):
        fill(folder, "images/1/bzImage")
    assert remove_built(load(lab.path), runs_too=True) == [folder / "images"]
    assert (folder / name).exists()


@pytest.mark.parametrize("name", [".DS_Store/x", "lost+found", "notes~/x"])
def test_such_names_with_another_file_type_are_foreign(tmp_path, name):
    fill(tmp_path / "new", name)
    assert "did not create" in refusal(tmp_path / "lab", "../new")


def test_a_link_to_a_state_folder_on_another_disk_is_accepted(tmp_path):
    disk = fill(tmp_path / "disk" / "of-before", "trees/1/make.lock")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / ".labctl").symlink_to(disk)
    lab = lab_of(tmp_path / "lab")
    assert lab.state == disk
    assert remove_built(lab, runs_too=False) == [disk / "trees"]
    (tmp_path / "lab" / ".labctl").unlink()
    (tmp_path / "lab" / ".labctl").symlink_to(tmp_path / "disk" / "new")  # not there yet
    with state.used(lab_of(tmp_path / "lab").state):
        assert state_folder.is_marked(tmp_path / "disk" / "new")


def test_the_hint_for_a_rejected_folder_names_an_acceptable_one(tmp_path, monkeypatch):
    volume = tmp_path / "volume"
    volume.mkdir()
    monkeypatch.setattr(state_folder, "mount_points", lambda: [volume])
    with pytest.raises(ConfigError) as caught:
        lab_of(tmp_path / "lab", f"{volume}")
    assert f"`state: {volume}/labctl`" in caught.value.problems[0].hint
    assert lab_of(tmp_path / "lab", f"{volume}/labctl")


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_a_stray_file_prevents_neither_report_nor_down(tmp_path, monkeypatch, words):
    lab = lab_of(tmp_path / "lab")
    state.claim(lab.state)
    monkeypatch.chdir(tmp_path / "lab")
    without = CliRunner().invoke(labctl, words)
    fill(lab.state, "notes")
    beside = CliRunner().invoke(labctl, words)
    assert (beside.exit_code, beside.output) == (without.exit_code, without.output)
    assert str(beside.exception) == str(without.exception)
    with pytest.raises(ConfigError, match="move it elsewhere"):
        load(lab.path)
    assert load(lab.path, use=Use.READS)


@pytest.mark.parametrize("words", READING[:-1], ids=lambda words: words[0])
def test_foreign_state_folders_are_not_read(tmp_path, monkeypatch, words):
    lab_of(tmp_path / "lab")
    fill(tmp_path / "lab" / ".labctl", "runs/1/run.json", "notes")
    monkeypatch.chdir(tmp_path / "lab")
    assert isinstance(CliRunner().invoke(labctl, words).exception, ConfigError)


@pytest.mark.parametrize("is_marked", [True, False])
def test_guests_can_always_be_stopped(tmp_path, monkeypatch, is_marked):
    lab = lab_of(tmp_path / "lab")
    folder = fill(lab.state / "guests" / "stock", "disk")
    if is_marked:
        state.claim(lab.state)
    fill(lab.state, "notes")
    with proc.spawn(["sleep", "60"], cwd=folder, env={"LABCTL_GUEST": "stock"}) as machine:
        monkeypatch.setattr(state_folder, "mount_points", lambda: [lab.state])
        monkeypatch.chdir(tmp_path / "lab")
        done = CliRunner().invoke(labctl, ["down"])
        assert (done.exit_code, machine.poll() is None) == (0, False)
        assert done.stdout.startswith("stock is down")
    assert (folder / "disk").exists() is not is_marked
    assert (lab.state / "notes").exists()


@pytest.mark.parametrize("use", Use)
def test_an_unreadable_state_folder_is_rejected_for_every_use(tmp_path, use):
    lab = lab_of(tmp_path / "lab")
    lab.state.symlink_to(".labctl")
    with pytest.raises(ConfigError, match=r"\.labctl' is not readable"):
        load(lab.path, use=use)
