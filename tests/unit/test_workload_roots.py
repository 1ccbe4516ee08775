"""`root:` of a workload: folders, archives and images become disks that guests only read."""

import gzip
import io
import os
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from labctl.arch import ARM64
from labctl.errors import ConfigError, HostError, UserError
from labctl.experiments import early
from labctl.experiments.plan import plan
from labctl.guests import disks, needs, prepare, qemu, virtme
from labctl.guests.disks import Disk
from labctl.kernels.build import Image
from labctl.lab.load import load
from labctl.lab.topology import Topology
from labctl.transports import Outcome
from labctl.workloads import ext4, trees
from labctl.workloads.supply import roots

HEADER = struct.pack(
    "<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 2, 62, 1, 0, 0, 0, 0, 64, 56, 0, 0, 0, 0
)


def program(path, machine=62, interpreter=None):
    """Write the header of a static program, which is never run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEADER[:18] + struct.pack("<H", machine) + HEADER[20:] + bytes(100))
    path.chmod(0o755)


@pytest.fixture
def rootfs(tmp_path):
    """A root with a shell, a benchmark and the link that /usr/bin is in old systems."""
    folder = tmp_path / "rootfs"
    program(folder / "bin" / "busybox")
    (folder / "bin" / "sh").symlink_to("busybox")
    (folder / "usr").mkdir()
    (folder / "usr" / "bin").symlink_to("/bin")
    program(folder / "opt" / "bench")
    (folder / "bin" / "bench").symlink_to("/opt/bench")
    (folder / "dev").mkdir()
    (folder / "etc").mkdir()
    (folder / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    return folder


@pytest.fixture
def planned(tmp_path):
    """Return a function that writes a lab with a workload and returns it with its plans."""

    def write(command="bench", defaults=None, experiment=None, **workload):
        content = {
            "version": 1,
            "defaults": defaults or {},
            "guests": {"small": {"nodes": 1, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "targets": {"board": {"kind": "ssh", "host": "board"}},
            "kernels": {"stock": {"source": "debian:linux-source-6.1"}},
            "workloads": {"mine": {"metric": "wall_time", **workload}},
            "experiments": {"one": {"workload": "mine", "kernels": ["stock"]}},
        }
        content["experiments"]["one"] |= experiment or {}
        if command is not None:
            content["workloads"]["mine"]["command"] = command
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        lab = load(path)
        return lab, [plan(lab, "one", 0)]

    return write


def checked(planned, **workload):
    (supply,) = early.check_commands(*planned(**workload)).values()
    return supply


def problem_of(planned, **workload):
    with pytest.raises(ConfigError) as caught:
        early.check_commands(*planned(**workload))
    (problem,) = caught.value.problems
    assert problem.line
    assert problem.column
    return problem


def archive(path, folder, mode="w", **members):
    with tarfile.open(path, mode) as file:
        file.add(folder, ".")
        for name, info in members.items():
            info.name = info.name or name
            file.addfile(info)
    return path


def member(name, kind=tarfile.REGTYPE, **values):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in values.items():
        setattr(info, key, value)
    return info


def image_of(folder, path):
    tree = trees.of_folder(folder)
    ext4.make(folder, path, tree.content_bytes, tree.files, str(uuid.UUID(int=1)))
    return path


def state_of(path):
    """Return bytes, modes and times of all files of a root, without what reading changes."""
    places = [path, *path.rglob("*")] if path.is_dir() else [path]
    found = {}
    for one in places:
        info = one.lstat()
        content = one.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        found[one] = (content, info.st_mode, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
    return found


def inode(image, path):
    said = subprocess.run(
        ["/usr/sbin/debugfs", "-R", f'stat "{path}"', image], capture_output=True, text=True
    ).stdout
    return " ".join(said.split())


def test_folder_archive_and_image_become_disks_and_are_not_written(planned, rootfs, tmp_path):
    sources = [
        rootfs,
        archive(tmp_path / "root.tar", rootfs),
        archive(tmp_path / "root.tar.gz", rootfs, "w:gz"),
        image_of(rootfs, tmp_path / "root.img"),
    ]
    for source in sources:
        before = state_of(source)
        for command in ("bench", "/usr/bin/bench --fast", "/opt/bench"):
            supply = checked(planned, root=source.name, command=command)
            assert ext4.Inside(supply.root.path).find("sh", ["/bin"]) == "/bin/busybox"
        assert state_of(source) == before
        clean = subprocess.run(["/usr/sbin/e2fsck", "-fn", supply.root.path], capture_output=True)
        assert clean.returncode == 0, clean.stdout
    assert supply.root.path == tmp_path / "root.img"


def test_a_script_needs_only_a_shell(planned, rootfs):
    shutil.rmtree(rootfs / "opt")
    supply = checked(planned, root="rootfs", command=None, script="echo 1")
    words = supply.script("echo 1", {"A": "b c"})
    assert words[:4] == ["env", "A=b c", "chroot", "/run/labctl-roots/mine/root"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda root: shutil.rmtree(root), "rootfs not found"),
        (lambda root: shutil.rmtree(root / "bin"), "has no bin/sh"),
        (lambda root: (root / "bin" / "sh").unlink(), "/bin/sh not found in the root"),
        (lambda root: (root / "opt" / "bench").unlink(), "bench not found in the root"),
        (lambda root: (root / "opt" / "bench").chmod(0o644), "bench not found in the roo"),
        (lambda root: program(root / "opt" / "bench", 183), "/opt/bench in the root is an arm64"),
        (lambda root: program(root / "bin" / "busybox", 183), "busybox in the root is an arm64"),
        (lambda root: os.mkfifo(root / "etc" / "pipe"), "etc/pipe is a FIFO"),
    ],
)
def test_a_folder_that_cannot_be_a_root_is_refused(planned, rootfs, change, what):
    change(rootfs)
    problem = problem_of(planned, root="rootfs")
    assert what in problem.what
    assert problem.key in ("workloads.mine.root", "workloads.mine.command")


def test_a_link_is_followed_inside_the_root_only(planned, rootfs, tmp_path):
    outside = tmp_path / "outside"
    program(outside)
    (rootfs / "bin" / "bench").unlink()
    (rootfs / "bin" / "bench").symlink_to(outside)
    assert "bench not found in the root" in problem_of(planned, root="rootfs").what
    (rootfs / "bin" / "bench").unlink()
    (rootfs / "bin" / "bench").symlink_to("../../../opt/bench")  # .. of the root is the root
    checked(planned, root="rootfs")


def test_interpreters_and_loaders_must_be_in_the_root(planned, rootfs):
    (rootfs / "opt" / "bench").write_text("#!/usr/bin/python9\n")
    assert "needs /usr/bin/python9, which is missing" in problem_of(planned, root="rootfs").what
    (rootfs / "opt" / "bench").write_text("#!/usr/bin/sh\n")
    checked(planned, root="rootfs")


def test_a_socket_and_a_device_node_are_refused_outside_dev(planned, rootfs, tmp_path, monkeypatch):
    monkeypatch.chdir(rootfs / "dev")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("log")
        checked(planned, root="rootfs")
        (rootfs / "dev" / "log").rename(rootfs / "etc" / "log")
        assert "etc/log is a socket" in problem_of(planned, root="rootfs").what
        (rootfs / "etc" / "log").unlink()
    node = member("dev/sda", tarfile.BLKTYPE)
    archive(tmp_path / "good.tar", rootfs, node=node)
    checked(planned, root="good.tar")
    archive(tmp_path / "bad.tar", rootfs, node=member("etc/sda", tarfile.BLKTYPE))
    assert "etc/sda is a device node" in problem_of(planned, root="bad.tar").what


@pytest.mark.parametrize(
    ("info", "what"),
    [
        (member("../evil"), "../evil leads outside the root"),
        (member("/etc/evil"), "/etc/evil leads outside the root"),
        (member("etc/../../evil"), "leads outside the root"),
        (member("hard", tarfile.LNKTYPE, linkname="../evil"), "leads outside the root"),
        (member("hard", tarfile.LNKTYPE, linkname="no"), "links to no, which is missing"),
        (member("etc/hosts/x"), "is a file and a folder"),
        (member("usr/bin/x", tarfile.SYMTYPE, linkname="y"), "usr/bin/x is behind a symbolic link"),
        (member("etc/pipe", tarfile.FIFOTYPE), "etc/pipe is a FIFO"),
    ],
)
def test_members_of_archives_that_lead_outside_are_refused(planned, rootfs, tmp_path, info, what):
    # The link usr/bin comes first, as in an archive that was made to escape through it.
    archive(tmp_path / "bad.tar", rootfs, evil=info)
    assert what in problem_of(planned, root="bad.tar").what
    assert not (tmp_path / "evil").exists()
    assert not list((tmp_path / ".labctl" / "roots").glob("*.ext4*"))


def test_modes_and_owners_of_an_archive_are_in_the_image_only(planned, rootfs, tmp_path):
    su = member("bin/su", mode=0o4755, uid=0, gid=12)
    mail = member("etc/a mail", mode=0o040, uid=1000, gid=70000)
    link = member("etc/link", tarfile.SYMTYPE, linkname="/nowhere", uid=5, gid=6)
    twin = member("bin/twin", tarfile.LNKTYPE, linkname="./bin/su")
    archive(tmp_path / "root.tar", rootfs, su=su, mail=mail, link=link, twin=twin)
    image = checked(planned, root="root.tar").root.path
    assert "Mode: 04755" in inode(image, "/bin/su")
    assert "Mode: 0040" in inode(image, "/etc/a mail")
    assert "User: 1000 Group: 70000" in inode(image, "/etc/a mail")
    assert "Type: symlink" in inode(image, "/etc/link")
    assert "User: 5 Group: 6" in inode(image, "/etc/link")
    assert "Links: 2" in inode(image, "/bin/twin")
    for one in (tmp_path / ".labctl").rglob("*"):
        assert not one.lstat().st_mode & 0o6000


def test_a_member_that_a_later_one_replaces_leaves_nothing(planned, rootfs, tmp_path):
    first = member("etc/x", mode=0o4755, uid=7, gid=7)
    second = member("etc/x", tarfile.SYMTYPE, linkname="hosts", uid=0, gid=0)
    archive(tmp_path / "root.tar", rootfs, first=first, second=second)
    image = checked(planned, root="root.tar").root.path
    assert "Type: symlink" in inode(image, "/etc/x")
    assert "User: 0" in inode(image, "/etc/x")


def test_the_hash_follows_names_modes_and_bytes_and_not_times(planned, rootfs, tmp_path):
    def digest():
        return checked(planned, root="rootfs").root.digest

    first = digest()
    os.utime(rootfs / "etc" / "hosts", (1, 1))
    assert digest() == first
    (rootfs / "etc" / "hosts").write_text("127.0.0.1 localhosT\n")
    second = digest()
    (rootfs / "etc" / "hosts").chmod(0o600)
    third = digest()
    (rootfs / "etc" / "hosts").rename(rootfs / "etc" / "host")
    assert len({first, second, third, digest()}) == 4
    copy = tmp_path / "copy"
    shutil.copytree(rootfs, copy, symlinks=True)
    assert checked(planned, root="copy").root.digest == digest()


def test_an_unchanged_folder_is_not_read_again(planned, rootfs, monkeypatch):
    checked(planned, root="rootfs")
    monkeypatch.setattr(trees, "digest", lambda _: pytest.fail("read again"))
    checked(planned, root="rootfs")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"text", "has an unknown format"),
        (b"", "unknown format"),
        (b"PARTITIONS", "has a partition table"),
        (b"XFSB", "is an XFS file system"),
        (b"hsqs", "is a squashfs file system"),
        (b"\x28\xb5\x2f\xfd", "is a Zstandard archive"),
    ],
)
def test_files_of_other_formats_are_named(planned, tmp_path, content, what):
    if content == b"PARTITIONS":
        content = bytes(510) + b"\x55\xaa"
    (tmp_path / "file").write_bytes(content + bytes(4096))
    problem = problem_of(planned, root="file")
    assert what in problem.what
    assert "expected" in problem.hint


def test_a_truncated_or_mounted_image_is_refused(planned, rootfs, tmp_path):
    image = image_of(rootfs, tmp_path / "root.img")
    with image.open("r+b") as file:
        file.seek(1024 + 96)
        flags = file.read(4)
        file.seek(-4, os.SEEK_CUR)
        file.write(struct.pack("<I", struct.unpack("<I", flags)[0] | 4))
    assert "is mounted, or was not unmounted" in problem_of(planned, root="root.img").what
    image_of(rootfs, image)
    os.truncate(image, image.stat().st_size // 2)
    assert "is truncated" in problem_of(planned, root="root.img").what


def test_a_damaged_archive_is_refused(planned, rootfs, tmp_path):
    whole = archive(tmp_path / "root.tar", rootfs).read_bytes()
    (tmp_path / "root.tar").write_bytes(gzip.compress(whole)[:-200])
    assert "is a damaged archive" in problem_of(planned, root="root.tar").what


def test_qcow2_is_converted_once_if_qemu_img_is_installed(planned, rootfs, tmp_path, monkeypatch):
    image_of(rootfs, tmp_path / "raw")
    (tmp_path / "root.qcow2").write_bytes(b"QFI\xfb" + bytes(1000))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if shutil.which("qemu-img") is None:
        with pytest.raises(HostError, match="qemu-img is not installed"):
            checked(planned, root="root.qcow2")
    fake = tmp_path / "tools" / "qemu-img"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\necho x >>{tmp_path}/calls\nfor last; do :; done\ncp {tmp_path}/raw "$last"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    checked(planned, root="root.qcow2")
    checked(planned, root="root.qcow2")
    assert (tmp_path / "calls").read_text() == "x\n"


def test_mmdebstrap_builds_a_root_of_packages_once(planned, rootfs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    root = "debian:bookworm@http://localhost/debian"
    if shutil.which("mmdebstrap") is None:
        with pytest.raises(HostError, match="mmdebstrap is not installed") as caught:
            checked(planned, root=root, packages=["fio"])
        assert "install the Debian package mmdebstrap" in caught.value.hint
    archive(tmp_path / "built.tar", rootfs)
    fake = tmp_path / "tools" / "mmdebstrap"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\ncp {tmp_path}/built.tar "$5"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    first = checked(planned, root=root, packages=["fio", "bc"])
    assert checked(planned, root=root, packages=["bc", "fio"]).root == first.root
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("--variant=minbase --architectures=amd64 --include=bc,fio bookworm ")
    assert call.endswith(" http://localhost/debian")
    fake.write_text("#!/bin/sh\necho E: no network >&2\nexit 1\n")
    with pytest.raises(HostError, match="E: no network"):
        checked(planned, root=root, packages=["dc"])


def test_files_are_beside_the_root_and_scripts_need_its_interpreters(planned, rootfs, tmp_path):
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "data").write_text("1")
    supply = checked(planned, root="rootfs", command="./run", files={"data": "data"})
    words = supply.argv(["./run", "--fast"])
    assert words[:2] == ["chroot", "/run/labctl-roots/mine/root"]
    assert words[-2:] == ["/labctl/mine/run", "--fast"]
    (tmp_path / "run").write_text("#!/usr/bin/perl\n")
    assert (
        "/usr/bin/perl not found in the root"
        in problem_of(planned, root="rootfs", command="./run").what
    )


def test_a_dynamic_program_of_the_host_brings_its_loader(planned, rootfs, tmp_path):
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-o", tmp_path / "mybench", tmp_path / "main.c"], check=True)
    supply = checked(planned, root="rootfs", command="./mybench")
    wrapper = supply.files["/labctl/mine/mybench"]
    assert "--library-path /labctl/mine/.lib /labctl/mine/.program/mybench" in wrapper.read_text()
    assert os.access(wrapper, os.X_OK)
    assert all(path.startswith("/labctl/mine/") for path in supply.files)


@pytest.mark.parametrize(
    ("more", "key", "what"),
    [
        ({"files": {"/etc/x": "x"}}, "workloads.mine.files./etc/x", "conflicts with `root:`"),
        ({"root": "debian:"}, "workloads.mine.root", "expected debian:SUITE"),
    ],
)
def test_what_is_not_possible_is_told_when_the_lab_is_read(planned, rootfs, more, key, what):
    with pytest.raises(ConfigError) as caught:
        planned(**{"root": "rootfs", **more})
    (problem,) = caught.value.problems
    assert (problem.key, bool(problem.line)) == (key, True)
    assert what in problem.what


@pytest.mark.parametrize("form", ["folder", "tar", "disk"])
def test_a_target_gets_the_root_as_an_archive(planned, rootfs, tmp_path, form):
    (rootfs / "opt" / "bench").chmod(0o700)
    source = {
        "folder": lambda: rootfs,
        "tar": lambda: archive(tmp_path / "root.tar", rootfs),
        "disk": lambda: image_of(rootfs, tmp_path / "root.img"),
    }[form]()
    image = checked(planned, root=source.name).root.path
    ext4.change(image, [ext4.Inode("/etc/hosts", "uid", "1000")])
    ext4.change(image, [ext4.Inode("/etc/hosts", "mode", "0104750")])
    (supply,) = early.supplies_of_target(*planned(root=source.name)).values()
    assert supply.chroot == "/run/labctl/roots/mine"
    assert supply.root.digest
    with tarfile.open(supply.archive) as file:
        members = {one.name: one for one in file}
    assert not {"dev", "proc", "sys", "lost+found"} & set(members)
    assert members["opt/bench"].mode == 0o700
    assert members["usr/bin"].linkname == "/bin"
    hosts = members["etc/hosts"]
    assert (hosts.uid, hosts.mode, hosts.size) == (1000, 0o4750, 20)
    assert not list(supply.archive.parent.glob("*.files"))


def test_a_command_that_the_root_lacks_is_reported_before_a_target_is_reached(planned, rootfs):
    with pytest.raises(ConfigError, match="nothing not found in the root"):
        early.supplies_of_target(*planned(root="rootfs", command="nothing"))


def test_a_target_needs_what_sets_up_a_root(planned, rootfs):
    class Box:
        name = "box"
        lacking = "chroot"

        def run(self, command, *, timeout_seconds):
            status = int(f" {self.lacking} " in command)
            return Outcome(command, status=status, stdout=b"", stderr=b"", seconds=0.1)

    lab, plans = planned(root="rootfs")
    supplies = early.supplies_of_target(lab, plans)
    with pytest.raises(ConfigError, match="chroot not found on target box"):
        early.check_commands_of(Box(), lab, plans, supplies)
    Box.lacking = "bench"  # which the root has
    early.check_commands_of(Box(), lab, plans, supplies)


def test_virtme_ng_has_the_disk_and_a_script_beside_its_programs(planned, rootfs, tmp_path):
    more = {"defaults": {"launcher": "virtme-ng"}, "files": {"data": "rootfs/etc/hosts"}}
    supply = checked(planned, root="rootfs", **more)
    assert list(supply.files) == ["/run/labctl-files/mine/data"]
    (place, script) = next(
        iter(disks.start_file(roots({"mine": supply}), "virtme-ng", tmp_path).items())
    )
    assert place == "roots-start"
    assert "files=/run/labctl-files\n" in script.read_text()
    words = virtme.command(spec_of(tmp_path, supply.root))
    assert f"serial={supply.root.serial}" in words[-1]


def spec_of(tmp_path, *found):
    image = Image("stock", Path("/bzImage"), "0" * 64, "", None, (), None, "6.1", "gcc", "x86_64")
    topology = Topology(nodes=1, cpus_per_node=1, memory_per_node=512 * 2**20)
    spec = qemu.GuestSpec("stock", image, topology, Path("/initramfs"), "tcg", tmp_path)
    return replace(spec, disks=found)


def test_a_guest_has_a_read_only_disk_and_mounts_it_by_its_number(planned, rootfs, tmp_path):
    supply = checked(planned, root="rootfs")
    words = qemu.command(spec_of(tmp_path, supply.root))
    (drive,) = (word for word in words if word.startswith("file="))
    assert "format=raw,readonly=on,if=none" in drive
    script = disks.start_script(roots({"mine": supply}), "qemu")
    assert f"root mine {supply.root.serial}" in script
    assert any(supply.root.serial in word for word in words)
    assert not any("virtio-blk" in word for word in qemu.command(spec_of(tmp_path)))


def test_a_root_that_changes_during_a_run_ends_it(rootfs, tmp_path):
    image = image_of(rootfs, tmp_path / "root.img")
    spec = spec_of(tmp_path, Disk.of(image, "0" * 64))
    spec.check_files()
    os.utime(image, (1, 1))
    with pytest.raises(HostError, match="root changed"):
        spec.check_files()
    image.unlink()
    with pytest.raises(HostError, match="root cannot be read"):
        spec.check_files()


def test_kernels_get_options_for_roots_only_in_labs_that_have_some(planned, rootfs):
    with_root, _ = planned(root="rootfs")
    without, _ = planned(command="freebench")
    names = [path.name for path in prepare._asked_for(with_root, "x86_64")]
    assert names == ["root.config"]
    assert prepare._asked_for(without, "x86_64") == ()


def test_a_built_image_without_the_options_is_refused(planned, rootfs):
    lab, _ = planned(root="rootfs")
    kernel, config = lab.kernels["stock"], dict.fromkeys(needs.options(lab.defaults, "x86_64"), "y")
    needs.check(kernel, config, Path("config"), lab.defaults)
    with pytest.raises(UserError, match="CONFIG_VIRTIO_BLK=n, CONFIG_EXT4_FS=n"):
        needs.check(kernel, config, Path("config"), lab.defaults, more=needs.ROOTS)


def test_roots_of_arm64_need_programs_of_arm64(planned, rootfs):
    for name in ("bin/busybox", "opt/bench"):
        program(rootfs / name, ARM64.elf_machine)
    lab, plans = planned(root="rootfs", defaults={"arch": "arm64"})
    try:
        (supply,) = early.check_commands(lab, plans).values()
    except HostError as error:  # no busybox for arm64 guests on this host
        pytest.skip(error.what)
    assert supply.root is not None


def test_the_host_root_and_mounted_folders_are_refused(planned):
    assert "root of this host" in problem_of(planned, root="/").what


def test_member_data_is_written(planned, rootfs, tmp_path):
    with tarfile.open(tmp_path / "root.tar", "w") as file:
        file.add(rootfs, "")
        info = member("etc/data", size=5, mode=0o644)
        file.addfile(info, io.BytesIO(b"12345"))
    image = checked(planned, root="root.tar").root.path
    copy = tmp_path / "copied"
    ext4.Inside(image).copy("/etc/data", copy)
    assert copy.read_bytes() == b"12345"
