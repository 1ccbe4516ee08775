"""`source: tar:PATH`: a tarball is unpacked only if it can be nothing but a kernel source."""

import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import faketree
import pytest

from labctl.errors import HostError, UserError
from labctl.kernels.build import Builder
from labctl.kernels.sources import open_source
from labctl.lab.load import load

COMPRESSORS = {"tar": None, "tar.xz": "xz", "tar.gz": "gzip", "tar.zst": "zstd", "tar.bz2": "bzip2"}


@pytest.fixture
def state(tmp_path):
    return tmp_path / ".labctl"


def compress(path, ending):
    """Compress an archive, and return the path of the result."""
    program = COMPRESSORS[ending]
    if program is None:
        return path
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    whole = path.with_name(f"linux.{ending}")
    whole.write_bytes(subprocess.run([program, "-c", path], check=True, capture_output=True).stdout)
    return whole


def pack(tmp_path, *more, ending="tar", top="linux-6.12/", files=faketree.FILES):
    """Pack the fake tree as kernel.org does, with more members at the end."""
    path = tmp_path / "linux.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "1234"}) as tar:
        for name, text in files.items():
            add(tar, f"{top}{name}", data=text.encode())
        for name, facts in more:
            add(tar, name, **facts)
    return compress(path, ending)


def add(tar, name, data=b"", **facts):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for fact, value in facts.items():
        setattr(member, fact, value)
    tar.addfile(member, io.BytesIO(data))


def unpacked(path, state):
    folder = state / "tree/src"
    source = open_source(f"tar:{path}", state)
    assert source.fill(folder, ()) == source.hash()
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if not p.is_dir()}


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_a_tarball_is_unpacked_without_its_folder(tmp_path, state, ending):
    found = unpacked(pack(tmp_path, ending=ending), state)
    assert {name: path.read_text() for name, path in found.items()} == faketree.FILES


def test_the_files_are_on_disk_before_the_folder_counts_as_complete(tmp_path, state, monkeypatch):
    tools, synced = tmp_path / "tools", tmp_path / "synced"
    tools.mkdir()
    # At the time of the sync, the unpacked files are below its folder, and `src` is missing.
    script = f'#!/bin/sh\necho "$@" "$(ls "$2"/content/*/Makefile)" > {synced}\n'
    script += f"test ! -e {state}/tree/src\n"
    (tools / "sync").write_text(script)
    (tools / "sync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    unpacked(pack(tmp_path), state)
    option, folder, makefile = synced.read_text().split()
    assert option == "-f"
    assert makefile.startswith(f"{folder}/content/")


def test_the_compression_is_reported_by_the_content(tmp_path, state):
    path = pack(tmp_path, ending="tar.gz").rename(tmp_path / "download")
    assert sorted(unpacked(path, state)) == sorted(faketree.FILES)


def test_a_name_with_a_wrong_ending_is_of_no_account(tmp_path, state):
    path = pack(tmp_path).rename(tmp_path / "host:linux.tar.xz")
    assert sorted(unpacked(path, state)) == sorted(faketree.FILES)


def test_a_renamed_copy_is_the_same_source(tmp_path, state):
    first = pack(tmp_path)
    second = shutil.copy(first, tmp_path / "copy.tar")
    sources = [open_source(f"tar:{path}", state) for path in (first, second)]
    assert len({source.key for source in sources}) == 1
    assert len({source.hash() for source in sources}) == 1


def test_links_within_the_source_and_modes_are_kept(tmp_path, state):
    more = [
        ("linux-6.12/a/b/link", {"type": tarfile.SYMTYPE, "linkname": "../../Kbuild"}),
        ("linux-6.12/hard", {"type": tarfile.LNKTYPE, "linkname": "linux-6.12/Kconfig"}),
        ("linux-6.12/tool", {"data": b"tool\n", "mode": 0o755}),
        ("linux-6.12/root", {"data": b"tool\n", "mode": 0o6755}),
    ]
    found = unpacked(pack(tmp_path, *more), state)
    assert found["a/b/link"].readlink() == Path("../../Kbuild")
    assert found["hard"].read_text() == faketree.FILES["Kconfig"]
    assert os.access(found["tool"], os.X_OK)
    assert not found["root"].stat().st_mode & 0o6000


def test_a_tarball_is_built(tmp_path, state):
    path = pack(tmp_path, ending="tar.xz")
    (tmp_path / "lab.yaml").write_text(
        f"version: 1\nkernels: {{stock: {{source: 'tar:{path.name}'}}}}\n"
        "workloads: {w: {command: freebench}}\n"
        "experiments: {e: {workload: w, kernels: [stock]}}\n"
    )
    kernel = load(tmp_path / "lab.yaml").kernels["stock"]
    fragments = (faketree.fragment(tmp_path / "base.config"),)
    kernel = kernel.model_copy(update={"kconfig": fragments})
    image = Builder(state, lambda _: None).image(kernel)
    assert image.release == faketree.RELEASE
    series = faketree.series(tmp_path / "series", faketree.changed())
    patched = kernel.model_copy(update={"name": "patched", "series": str(series)})
    image = Builder(state, lambda _: None).image(patched)
    assert faketree.compiled(image) == ["mm/mmu_gather.o"]


def link(name, target, kind=tarfile.SYMTYPE):
    return f"linux-6.12/{name}", {"type": kind, "linkname": target}


HOSTILE = {
    "absolute": ("/tmp/labctl-evil", {"data": b"evil"}),
    "above": ("linux-6.12/../../evil", {"data": b"evil"}),
    "beside": ("other/evil", {"data": b"evil"}),
    "top file": ("evil", {"data": b"evil"}),
    "absolute link": link("evil", "/etc/passwd"),
    "link above": link("mm/evil", "../../evil"),
    "link to the folder above": link("evil", ".."),
    "hard link above": link("evil", "../evil", tarfile.LNKTYPE),
    "absolute hard link": link("evil", "/etc/passwd", tarfile.LNKTYPE),
    "pipe": ("linux-6.12/evil", {"type": tarfile.FIFOTYPE}),
    "device": ("linux-6.12/evil", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
}


@pytest.mark.parametrize("member", HOSTILE)
def test_a_member_that_no_source_has_is_refused(tmp_path, state, member):
    path = pack(tmp_path, HOSTILE[member])
    with pytest.raises(UserError, match=f"{path}: ") as caught:
        unpacked(path, state)
    assert "download the archive again" in str(caught.value)
    assert list((state / "tree").iterdir()) == []
    assert not (tmp_path / "evil").exists()
    assert not Path("/tmp/labctl-evil").exists()


def test_nothing_is_written_through_a_link(tmp_path, state):
    (tmp_path / "out").mkdir()
    more = [link("evil", str(tmp_path / "out")), ("linux-6.12/evil/file", {"data": b"evil"})]
    with pytest.raises(UserError):
        unpacked(pack(tmp_path, *more), state)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("ending", COMPRESSORS)
@pytest.mark.parametrize("cut", ["in the middle", "at the end"])
def test_a_truncated_archive_is_refused_and_used_when_it_is_whole(tmp_path, state, ending, cut):
    path = pack(tmp_path, ending=ending)
    whole = path.read_bytes()
    if (ending, cut) == ("tar", "at the end"):
        pytest.skip("its end is padding")
    path.write_bytes(whole[: len(whole) // 2 if cut == "in the middle" else -3])
    with pytest.raises(UserError, match="source cannot be unpacked: ") as caught:
        unpacked(path, state)
    assert "download the archive again" in str(caught.value)
    path.write_bytes(whole)
    assert sorted(unpacked(path, state)) == sorted(faketree.FILES)


def test_an_archive_cut_between_two_files_is_refused(tmp_path, state):
    path = pack(tmp_path)
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    with pytest.raises(UserError, match="not a complete tar archive"):
        unpacked(path, state)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a complete tar archive"),
        (b"<html>404</html>", "not a complete tar archive"),
        (bytes(10240), "expected exactly one folder"),
    ],
    ids=["empty", "a page", "no member"],
)
def test_what_is_no_tarball_is_refused(tmp_path, state, content, message):
    path = tmp_path / "linux.tar.xz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        unpacked(path, state)


def test_a_tarball_without_a_kernel_is_refused(tmp_path, state):
    files = {"README": "text\n", "Makefile": "all:\n"}
    with pytest.raises(UserError, match="not a kernel source: expected Kbuild and Makefile"):
        unpacked(pack(tmp_path, files=files), state)


def test_a_tarball_without_a_folder_is_refused(tmp_path, state):
    with pytest.raises(UserError, match="expected exactly one folder in the archive"):
        unpacked(pack(tmp_path, top=""), state)


def test_a_missing_program_is_named(tmp_path, state, monkeypatch):
    path = pack(tmp_path, ending="tar.zst")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(HostError, match="zstd is not installed") as caught:
        unpacked(path, state)
    assert re.search("apt-get install zstd", str(caught.value))
