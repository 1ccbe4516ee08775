import json
import os
import subprocess
import sys
import time
from pathlib import Path

import faketree
import pytest

from labctl.errors import BuildError, HostError, UserError
from labctl.kernels import listing, remains
from labctl.kernels.build import Builder

EVERYTHING = ["init/main.o", "mm/memory.o", "mm/mmu_gather.o"]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    return Lab(tmp_path, monkeypatch)


@pytest.fixture
def mine(tmp_path):
    return faketree.write(tmp_path / "mine")


class Lab:
    """A builder over a fake source, and the kernels it is asked for."""

    def __init__(self, tmp_path, monkeypatch):
        self.tmp_path = tmp_path
        self.source = faketree.pack(tmp_path, monkeypatch)
        self.config = faketree.fragment(tmp_path / "base.config")
        self.root = tmp_path / ".labctl"
        self.progress = []
        self.builder = Builder(self.root, self.progress.append)

    def kernel(self, name="stock", *patches, **more):
        if patches:
            more["series"] = str(faketree.series(self.tmp_path / f"series-{name}", *patches))
        return faketree.kernel(
            name, more.pop("source", self.source), **{"kconfig": (self.config,)} | more
        )

    def image(self, *args, **more):
        return self.builder.image(self.kernel(*args, **more))

    def records(self):
        return [json.loads(p.read_text()) for p in self.root.glob("images/*/image.json")]


def text(image):
    return image.bzimage.read_text("latin-1")


def test_a_cold_build_compiles_everything_and_reports_its_steps(lab):
    image = lab.image()
    assert faketree.compiled(image) == EVERYTHING
    assert image.release == faketree.RELEASE
    assert image.config.read_text().startswith("CONFIG_NUMA=y\n")
    assert (image.kernel, image.series_hash, image.patch_hashes) == ("stock", None, ())
    assert "gcc" in image.compiler
    (record,) = lab.records()
    assert (record["state"], record["hash"], record["warnings"]) == ("built", image.hash, 0)


def test_the_same_inputs_build_once(lab):
    first = lab.image()
    lab.progress.clear()
    again = Builder(lab.root, lab.progress.append).image(lab.kernel())
    assert again == first
    assert lab.progress == []


def test_a_comment_in_a_fragment_or_another_name_is_no_new_image(lab):
    first = lab.image()
    faketree.fragment(lab.config, "# why\nCONFIG_NUMA=y\n")
    assert lab.image("another").hash == first.hash
    assert lab.progress[-1].kernel == "stock"


def test_a_patched_kernel_compiles_only_what_the_patch_touches(lab):
    stock = lab.image()
    patched = lab.image("patched", faketree.changed())
    assert faketree.compiled(patched) == ["mm/mmu_gather.o"]
    assert "int handovers;" in text(patched)
    assert "int handovers;" not in text(stock)
    assert patched.hash != stock.hash
    assert patched.source_hash == stock.source_hash
    assert len(patched.patch_hashes) == 1


def test_a_changed_patch_is_built_again_and_only_its_file(lab):
    lab.image()
    header = faketree.changed("struct", "extern struct", "include/tlb.h")
    lab.image("patched", header, faketree.changed())
    edited = lab.image("patched", header, faketree.changed(new="int backlog;"))
    assert faketree.compiled(edited) == ["mm/mmu_gather.o"]
    assert "int backlog;" in text(edited)
    assert "extern struct" in text(edited)


def test_stock_after_patched_is_stock(lab):
    new_file = faketree.diff("mm/parallel.c", None, "int brought;\n")
    lab.image("patched", faketree.changed(), new_file)
    (tree,) = (lab.root / "trees").iterdir()
    assert (tree / "src/mm/parallel.c").is_file()
    stock = lab.image()
    assert not (tree / "src/mm/parallel.c").exists()
    assert "int line15;" in text(stock)
    assert faketree.compiled(stock) == ["mm/mmu_gather.o"]


def test_two_series_of_one_file_do_not_mix(lab):
    one = lab.image("one", faketree.changed("int line2;", "int one;"))
    two = lab.image("two", faketree.changed("int line29;", "int two;"))
    assert "int one;" in text(one)
    assert "int one;" not in text(two)
    assert "int two;" in text(two)


def test_a_changed_fragment_is_another_image(lab):
    first = lab.image()
    faketree.fragment(lab.config, "CONFIG_NUMA=y\nCONFIG_NR_CPUS=64\n")
    second = lab.image()
    assert second.hash != first.hash
    assert "CONFIG_NR_CPUS=64" in second.config.read_text()
    assert "CONFIG_NR_CPUS=64" in text(second)
    assert first.bzimage.is_file()


def test_the_order_of_options_is_in_the_address_since_a_choice_goes_to_the_last(lab, tmp_path):
    one = faketree.fragment(tmp_path / "one.config", "CONFIG_NUMA=y\n")
    two = faketree.fragment(tmp_path / "two.config", "CONFIG_KALLSYMS=y\n")
    assert lab.image(kconfig=(one, two)).hash != lab.image(kconfig=(two, one)).hash


def test_what_a_fragment_overrides_is_in_the_build_log(lab, tmp_path):
    more = faketree.fragment(tmp_path / "more.config", "CONFIG_NUMA=n\n")
    log = lab.image(kconfig=(lab.config, more)).bzimage.with_name("build.log").read_text()
    assert "base.config:1: CONFIG_NUMA=y is overridden by" in log


def test_a_dropped_option_stops_the_build(lab):
    faketree.fragment(lab.config, "CONFIG_NUMA_BALANCING=y\n")
    with pytest.raises(UserError, match=r"base.config:1: CONFIG_NUMA_BALANCING=y became n"):
        lab.image()
    assert [r["state"] for r in lab.records()] == ["failed"]


def test_a_failed_compilation_shows_its_last_errors_and_the_log(lab):
    with pytest.raises(BuildError) as caught:
        lab.image("patched", faketree.changed(new="#error no such page"))
    assert any("mm/mmu_gather.c:15:2: error: no such page" in e for e in caught.value.errors)
    assert "error: no such page" in Path(caught.value.where).read_text()
    (record,) = lab.records()
    assert record["state"] == "failed"


def test_after_a_failed_compilation_the_next_one_is_whole(lab):
    with pytest.raises(BuildError):
        lab.image("patched", faketree.changed(new="#error no"))
    assert "int line15;" in text(lab.image())
    assert "int good;" in text(lab.image("patched", faketree.changed(new="int good;")))


def test_warnings_are_counted(lab):
    lab.image("patched", faketree.changed(new="#warning too long"))
    (record,) = lab.records()
    assert record["warnings"] == 1


def test_a_series_that_does_not_apply_stops_before_anything_is_built(lab):
    bad = faketree.changed().replace("-int line15;", "-int line99;")
    with pytest.raises(UserError, match=r"mm/mmu_gather.c, hunk #1 at line 12"):
        lab.builder.images([lab.kernel(), lab.kernel("patched", bad)])
    assert lab.records() == []


def test_progress_counts_steps_and_learns_their_number(lab, monkeypatch):
    monkeypatch.setattr("labctl.kernels.make._POLL_SECONDS", 0.001)
    monkeypatch.setattr("labctl.kernels.make._FEW_STEPS", 1)
    lab.image()
    assert {"unpacking", "configuring", "compiling"} <= {p.stage for p in lab.progress}
    (steps,) = (lab.root / "trees").glob("*/build-*.steps.json")
    assert json.loads(steps.read_text()) == {"/whole": 4}
    lab.progress.clear()
    lab.image("patched", faketree.changed())
    last = lab.progress[-1]
    assert last.kernel == "patched"
    assert json.loads(steps.read_text()) == {"/whole": 4, "patched": 2}
    steps.unlink()
    lab.image("other", faketree.changed(new="int other;"))
    assert json.loads(steps.read_text()) == {"other": 2}


def test_the_users_environment_does_not_change_the_image(lab, monkeypatch):
    monkeypatch.setenv("KCFLAGS", "-DSURPRISE")
    monkeypatch.setenv("MAKEFLAGS", "s")
    monkeypatch.setenv("LOCALVERSION", "-mine")
    image = lab.image()
    assert "SURPRISE" not in text(image)
    assert image.release == faketree.RELEASE
    assert faketree.compiled(image) == EVERYTHING


def test_a_damaged_image_is_built_again(lab):
    image = lab.image()
    with image.bzimage.open("ab") as file:
        file.write(b"torn")
    assert not text(lab.image()).endswith("torn")


@pytest.mark.parametrize("name", ["bzImage", "config"])
def test_a_torn_file_of_an_image_is_named_and_built_again(lab, name):
    image = lab.image()
    path = image.bzimage.with_name(name)
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    lab.progress.clear()
    again = lab.image()
    assert again == image
    assert path.read_bytes() == whole
    assert f"rebuilding: {name} is damaged" in [p.stage for p in lab.progress]


@pytest.mark.parametrize("record", ["", "{}", '{"state": "built"}', '{"state": "built", "ha'])
def test_a_damaged_record_of_an_image_is_no_image(lab, record):
    image = lab.image()
    image.bzimage.with_name("image.json").write_text(record)
    assert lab.image() == image


def test_an_image_knows_the_hashes_of_its_files(lab, tmp_path):
    built = lab.image()
    ready = tmp_path / "vmlinuz-6.1.0"
    ready.write_bytes(built.bzimage.read_bytes())
    faketree.fragment(tmp_path / "config-6.1.0")
    given = lab.image(source=f"image:{ready}", kconfig=())
    for image in (built, lab.image(), given):
        assert [f.path for f in image.files()] == [image.bzimage, image.config]
        assert all(file.holds() for file in image.files())
    ready.write_bytes(b"replaced")
    with pytest.raises(HostError, match=r"vmlinuz-6\.1\.0: file changed"):
        given.files()[0].check()


def test_a_missing_tool_is_reported_before_the_build(lab, monkeypatch):
    monkeypatch.setattr("labctl.kernels.toolchain._TOOLS", ("make", "no-such-tool"))
    with pytest.raises(HostError, match="no-such-tool"):
        lab.image()
    assert lab.records() == []


def test_a_killed_compiler_is_the_hosts_fault(lab):
    with pytest.raises(HostError, match="a compiler was killed, possibly by the OOM") as caught:
        lab.image("patched", faketree.changed(new="// killed"))
    assert caught.value.where.endswith("build.log")


def test_a_full_disk_is_the_hosts_fault(lab):
    words = "cannot write: No space left on device"
    with pytest.raises(HostError, match="the disk is full") as caught:
        lab.image("patched", faketree.changed(new=f"#error {words}"))
    assert str(lab.root) in caught.value.where


# Other processes, and killed ones.

SCRIPT = """
import json, sys
from pathlib import Path
from labctl.kernels import sources
from labctl.kernels.build import Builder
from labctl.lab.models import Kernel
sources.DEBIAN_FOLDER = Path(sys.argv[1])
kernel = Kernel.model_validate_json(sys.argv[3])
print(Builder(Path(sys.argv[2]), lambda _: None).image(kernel).hash)
"""


def elsewhere(lab, kernel):
    """Build a kernel in another process."""
    argv = [sys.executable, "-c", SCRIPT, lab.tmp_path / "usr-src", lab.root]
    return subprocess.Popen([*argv, kernel.model_dump_json()], stdout=subprocess.PIPE, text=True)


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text().strip():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    return int(path.read_text())


def test_a_builder_waits_for_another_one_and_uses_its_image(lab, mine):
    released = lab.tmp_path / "released"
    with (mine / "mm/memory.c").open("a") as file:
        file.write(f"// hold {released}\n")
    kernel = lab.kernel(source=f"dir:{mine}")
    other = elsewhere(lab, kernel)
    wait_for(Path(f"{released}.hangs"), other)
    messages = []

    def show(progress):
        messages.append(progress.stage)
        released.touch()

    image = Builder(lab.root, show).image(kernel)
    assert other.communicate(timeout=60)[0].strip() == image.hash
    assert other.returncode == 0
    assert set(messages) == {"waiting for another labctl's build"}


def test_builders_side_by_side_do_not_mix(lab):
    stock, patched = lab.kernel(), lab.kernel("patched", faketree.changed())
    processes = [elsewhere(lab, k) for k in (stock, patched)]
    hashes = [p.communicate(timeout=60)[0].strip() for p in processes]
    assert [p.returncode for p in processes] == [0, 0]
    lab.progress.clear()
    images = [lab.builder.image(k) for k in (stock, patched)]
    assert lab.progress == []
    assert [i.hash for i in images] == hashes
    assert ["int handovers;" in text(i) for i in images] == [False, True]


def test_a_killed_build_leaves_a_record_and_the_next_one_is_whole(lab):
    lab.image()
    released = lab.tmp_path / "released"
    patched = lab.kernel("patched", faketree.changed(new=f"// wait {released}"))
    process = elsewhere(lab, patched)
    compiler = wait_for(Path(f"{released}.hangs"), process)
    process.kill()
    process.communicate(timeout=60)
    assert sorted(r["state"] for r in lab.records()) == ["building", "built"]
    assert Path(f"/proc/{compiler}").exists()  # make died with labctl, its children did not
    released.touch()
    image = lab.builder.image(patched)
    assert text(image).count("end of object") == 3
    assert "half of" not in text(image)
    status = Path(f"/proc/{compiler}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
    assert {r["state"] for r in lab.records()} == {"built"}


def test_what_a_killed_compiler_may_have_torn_goes_and_the_rest_stays(tmp_path):
    now = time.time()

    def made(name, target_age, command_age):
        for path, age in ((tmp_path / name, target_age), (tmp_path / f".{name}.cmd", command_age)):
            path.write_text("")
            os.utime(path, (now - age, now - age))

    made("old.o", 100, 99)
    made("in-work.o", 50, 99)
    made("last.o", 1, 0)
    remains.remove_half_written(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".old.o.cmd", "old.o"]


# The user's own folder, and ready images.


def snapshot(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_a_folder_is_built_with_its_edits_and_never_touched(lab, mine):
    before = snapshot(mine)
    patched = lab.image("patched", faketree.changed(), source=f"dir:{mine}")
    assert "int handovers;" in text(patched)
    assert snapshot(mine) == before
    edited = (mine / "mm/memory.c").read_text().replace("zap_pte_range", "zap_faster")
    (mine / "mm/memory.c").write_text(edited)
    again = lab.image("patched", faketree.changed(), source=f"dir:{mine}")
    assert again.hash != patched.hash
    assert "zap_faster" in text(again)
    assert faketree.compiled(again) == ["mm/memory.o"]


def test_a_folder_is_read_once_for_all_kernels_of_it(lab, mine, monkeypatch):
    kernels = [
        lab.kernel(name, *patches, source=f"dir:{mine}")
        for name, patches in {"stock": [], "patched": [faketree.changed()]}.items()
    ]
    lab.builder.images(kernels)
    looks = []
    files = listing.files
    monkeypatch.setattr(listing, "files", lambda folder: looks.append(folder) or files(folder))
    lab.builder.images(kernels)
    assert len(looks) == 1


def test_an_edit_of_a_patched_file_in_the_folder_is_seen(lab, mine):
    lab.image("patched", faketree.changed(), source=f"dir:{mine}")
    path = mine / "mm/mmu_gather.c"
    path.write_text(path.read_text().replace("int line2;", "int edited;"))
    image = lab.image("patched", faketree.changed(), source=f"dir:{mine}")
    assert "int edited;" in text(image)
    assert "int handovers;" in text(image)
    assert faketree.compiled(image) == ["mm/mmu_gather.o"]


def test_a_file_put_back_with_its_old_time_is_compiled_again(lab, mine):
    path = mine / "mm/memory.c"
    info, old = path.stat(), path.read_text()
    lab.image(source=f"dir:{mine}")
    path.write_text(old.replace("zap", "zip"))
    lab.image(source=f"dir:{mine}")
    path.write_text(old + "int more;\n")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert "int more;" in text(lab.image(source=f"dir:{mine}"))


@pytest.mark.parametrize("end", ["built", "failed"])
def test_an_edit_after_the_hosts_clock_was_set_back_is_compiled(lab, mine, end):
    """make compares times: a source written now would be older than its object."""
    path = mine / "mm/memory.c"
    lab.image(source=f"dir:{mine}")
    if end == "failed":
        (mine / "init/main.c").write_text("#error broken\n")
        with pytest.raises(BuildError):
            lab.image(source=f"dir:{mine}")
        (mine / "init/main.c").write_text("int mended;\n")
    set_back(lab, seconds=3600)
    path.write_text(path.read_text() + "int edited;\n")
    lab.progress.clear()
    image = lab.image(source=f"dir:{mine}")
    assert "int edited;" in text(image)
    assert "rebuilding: the host's clock was set back" in [p.stage for p in lab.progress]
    path.write_text(path.read_text() + "int again;\n")
    lab.progress.clear()
    assert "int again;" in text(lab.image(source=f"dir:{mine}"))
    assert "rebuilding: the host's clock was set back" not in [p.stage for p in lab.progress]


def set_back(lab, seconds):
    """Let what builds have written be of a future, as after a clock that was set back."""
    for path in lab.root.glob("trees/*/build-*"):
        for each in [path, *path.rglob("*")]:
            info = each.lstat()
            later = info.st_mtime_ns + seconds * 10**9
            os.utime(each, ns=(later, later), follow_symlinks=False)


def test_objects_that_a_crash_of_the_host_emptied_are_built_again(lab, mine, monkeypatch):
    """An object of the size 0 and with the right time is finished to make."""
    monkeypatch.setattr("labctl.kernels.tree.Tree._sync", lambda _: None)  # the power is cut
    lab.image(source=f"dir:{mine}")
    monkeypatch.undo()
    (tree,) = lab.root.glob("trees/*")
    (crashed,) = tree.glob("build-*/mm/memory.o")
    for path in (crashed, tree / "src/mm/memory.c"):
        info = path.stat()
        path.write_bytes(b"")
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    os.utime(tree / "unsynced", (1, 1))  # of an earlier boot
    (mine / "init/main.c").write_text("int edited;\n")
    lab.progress.clear()
    image = lab.image(source=f"dir:{mine}")
    assert "zap_pte_range" in text(image)
    assert "int edited;" in text(image)
    reason = "rebuilding: the host crashed before the last build was on the disk"
    assert reason in [p.stage for p in lab.progress]
    assert not (tree / "unsynced").exists()


def test_objects_are_kept_after_a_crash_of_the_host_if_they_were_on_the_disk(lab, mine):
    lab.image(source=f"dir:{mine}")
    for path in lab.root.glob("trees/**/*"):
        os.utime(path, (1000, 1000), follow_symlinks=False)
    (mine / "init/main.c").write_text("int edited;\n")
    assert faketree.compiled(lab.image(source=f"dir:{mine}")) == ["init/main.o"]


def test_an_edit_that_git_overlooks_never_takes_the_address_of_what_was_built(lab, mine):
    for words in ("init -q", "add -A", "commit -qm all", "update-index --skip-worktree Kbuild",
                  "update-index --assume-unchanged mm/memory.c"):  # fmt: skip
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", mine, *identity, *words.split()], check=True)
    clean = lab.image(source=f"dir:{mine}")
    with (mine / "mm/memory.c").open("a") as file:
        file.write("int slipped_in;\n")
    edited = lab.image(source=f"dir:{mine}")
    assert edited.hash != clean.hash
    assert "slipped_in" in text(edited)


def test_an_edit_in_the_middle_of_copying_is_reported(lab, mine):
    def show(progress):
        if progress.stage == "unpacking":
            (mine / "mm/memory.c").write_text("edited\n")

    with pytest.raises(UserError, match="changed while it was read"):
        Builder(lab.root, show).image(lab.kernel(source=f"dir:{mine}"))
    assert "edited\n" in text(lab.image(source=f"dir:{mine}"))


def test_an_image_is_taken_as_it_is(lab, tmp_path):
    ready = tmp_path / "vmlinuz-6.1.0"
    ready.write_bytes(lab.image().bzimage.read_bytes())
    config = faketree.fragment(tmp_path / "config-6.1.0")
    image = lab.image(source=f"image:{ready}", kconfig=())
    assert (image.bzimage, image.config, image.release) == (ready, config, faketree.RELEASE)
    config = faketree.fragment(tmp_path / "vmlinuz-6.1.0.config")
    assert lab.image(source=f"image:{ready}", kconfig=()).config == config
    ready.write_bytes(ready.read_bytes() + b"more")
    assert lab.image(source=f"image:{ready}", kconfig=()).hash != image.hash


def test_faults_of_an_image_are_reported(lab, tmp_path):
    path = tmp_path / "kernel"
    with pytest.raises(UserError, match="cannot be read"):
        lab.image(source=f"image:{path}", kconfig=())
    path.write_text("not a kernel")
    with pytest.raises(UserError, match="is not a bzImage"):
        lab.image(source=f"image:{path}", kconfig=())
    with pytest.raises(UserError, match="not supported"):
        lab.image(source=f"image:{path}")


class Refusing:
    """A guard that knows what it was shown, and refuses what a test names."""

    def __init__(self, refused):
        self.refused = refused
        self.shown = []

    def check_options(self, kernel, options, arch):
        self._see("options", {option.name for option in options})

    def check_config(self, kernel, config, arch):
        self._see("config", set(config))

    def check_source(self, kernel, may_have):
        pass

    def _see(self, what, names):
        self.shown.append((what, names))
        if what == self.refused:
            raise UserError("allows too little")


@pytest.mark.parametrize("refused", ["options", "config"])
def test_a_configuration_that_is_refused_is_not_built(lab, refused):
    guard = Refusing(refused)
    with pytest.raises(UserError, match="allows too little"):
        Builder(lab.root, lab.progress.append, guard).image(lab.kernel())
    assert "compiling" not in {progress.stage for progress in lab.progress}
    assert all(names for _, names in guard.shown)


def test_an_image_that_is_built_already_is_looked_at_too(lab):
    lab.image()
    with pytest.raises(UserError, match="allows too little"):
        Builder(lab.root, lab.progress.append, Refusing("config")).image(lab.kernel())
