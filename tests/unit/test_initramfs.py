"""The guest's file system: reproducible, well-formed, never built twice."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from labctl import proc
from labctl.errors import BuildError, HostError, UserError
from labctl.guests import cpio, initramfs
from labctl.guests.cpio import Entry


def parse(archive: bytes) -> dict[str, Entry]:
    """Read a newc archive by the format's own rules."""
    found: dict[str, Entry] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, major, minor, name_size = (fields[i] for i in (1, 6, 9, 10, 11))
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        at += (110 + name_size + 3) & ~3
        content = archive[at : at + size]
        at += (size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert at == len(archive)
            return found
        found[name[:-1].decode()] = Entry(name[:-1].decode(), mode, content, (major, minor))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A guest folder whose programs compile in a moment."""
    folder = tmp_path / "source"
    for program in ("init", "agent", "freebench", "integrity"):
        (folder / program).mkdir(parents=True)
        (folder / program / "main.c").write_text(f"int main(void) {{ return {len(program)}; }}\n")
    return folder


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH whose gcc knows its version and fails at everything else."""
    tools = tmp_path / "tools"
    tools.mkdir()
    version = proc.run(["gcc", "--version"], timeout_seconds=20).text
    (tools / "version").write_text(version)
    gcc = tools / "gcc"
    gcc.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec cat {tools}/version\nexit 1\n')
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")


def test_an_archive_reads_back_as_it_was_written() -> None:
    entries = [
        Entry.folder("dev"),
        Entry.device("dev/console", 5, 1),
        Entry.file("odd", b"12345", 0o755),
        Entry.file("empty", b"", 0o644),
        Entry.link("link", "odd"),
    ]
    found = parse(cpio.archive(entries))
    assert list(found.values()) == entries


def test_the_last_of_two_files_with_one_name_wins() -> None:
    first, last = Entry.file("a", b"1", 0o644), Entry.file("a", b"2", 0o644)
    assert parse(cpio.archive([first, last])) == {"a": last}


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_agrees_with_the_archive() -> None:
    entries = [Entry.folder("d"), Entry.file("d/f", b"text", 0o644), Entry.link("l", "d/f")]
    listing = proc.run(["cpio", "-t"], stdin=cpio.archive(entries), timeout_seconds=20)
    assert listing.text.split() == ["d", "d/f", "l"]


def test_files_that_a_guest_needs_are_in_the_archive(tmp_path: Path, source: Path) -> None:
    built = initramfs.build(tmp_path / "lab", source=source)
    found = parse(built.path.read_bytes())
    assert found["dev/console"].numbers == (5, 1)
    assert stat.S_ISCHR(found["dev/console"].mode)
    for program in ("init", "bin/labagent", "bin/freebench", "bin/integrity", "bin/busybox"):
        assert found[program].content.startswith(b"\x7fELF")
        assert found[program].mode & 0o111 == 0o111
    for applet in ("sh", "cat", "mount", "poweroff", "gunzip"):
        assert found[f"bin/{applet}"].content == b"busybox"
    for folder in ("proc", "sys", "tmp", "run"):
        assert stat.S_ISDIR(found[folder].mode)


def test_the_same_inputs_give_the_same_bytes_anywhere(tmp_path: Path, source: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(source, elsewhere)
    first = initramfs.build(tmp_path / "one", source=source)
    second = initramfs.build(tmp_path / "two", source=elsewhere)
    assert first.hash == second.hash
    assert first.path.read_bytes() == second.path.read_bytes()


def test_the_same_inputs_are_not_built_again(
    tmp_path: Path, source: Path, request: pytest.FixtureRequest
) -> None:
    first = initramfs.build(tmp_path / "lab", source=source)
    before = first.path.stat().st_mtime_ns
    request.getfixturevalue("no_compiler")
    assert initramfs.build(tmp_path / "lab", source=source) == first
    assert first.path.stat().st_mtime_ns == before


def torn(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_torn_initramfs_is_written_again(tmp_path: Path, source: Path) -> None:
    first = initramfs.build(tmp_path / "lab", source=source)
    whole = first.path.read_bytes()
    torn(first.path)
    assert initramfs.build(tmp_path / "lab", source=source) == first
    assert first.path.read_bytes() == whole


@pytest.mark.parametrize("name", ["freebench-*", "programs-*/freebench"])
def test_a_torn_program_is_made_again(tmp_path: Path, source: Path, name: str) -> None:
    first = initramfs.build(tmp_path / "lab", source=source)
    found = [p for p in (tmp_path / "lab/guest").glob(name) if p.suffix != ".sha256"]
    (program,) = found
    whole, mode = program.read_bytes(), program.stat().st_mode
    torn(program)
    again = initramfs.build(tmp_path / "lab", source=source)
    assert again == first
    assert (program.read_bytes(), program.stat().st_mode) == (whole, mode)


def test_a_guest_is_given_the_hashes_of_what_its_launcher_reads(
    tmp_path: Path, source: Path
) -> None:
    built = initramfs.build(tmp_path / "lab", source=source)
    (archive,) = built.files("qemu")
    assert (archive.path, archive.holds()) == (built.path, True)
    programs = built.files("virtme")
    assert {p.path.name for p in programs} == {"init", "labagent", "freebench", "integrity"}
    assert all(p.path.parent == built.programs and p.holds() for p in programs)


@pytest.mark.parametrize("name", ["main.c", "main.h"])
def test_a_changed_source_is_another_archive(tmp_path: Path, source: Path, name: str) -> None:
    (source / "agent" / "main.h").write_text("#define STATUS 1\n")
    (source / "agent" / "main.c").write_text(
        '#include "main.h"\nint main(void) { return STATUS; }\n'
    )
    first = initramfs.build(tmp_path / "lab", source=source)
    path = source / "agent" / name
    text = path.read_text().replace("STATUS 1", "STATUS 2").replace("return ", "return 7+")
    path.write_text(text)
    second = initramfs.build(tmp_path / "lab", source=source)
    assert first.hash != second.hash
    assert first.path.exists()
    assert second.path.exists()


@pytest.mark.parametrize("name", ["two.c", "two.h"])
def test_a_program_is_built_from_what_it_includes_of_the_library(
    tmp_path: Path, source: Path, name: str
) -> None:
    (source / "lib").mkdir()
    (source / "lib" / "two.h").write_text("int two(void);\n")
    (source / "lib" / "two.c").write_text('#include "two.h"\nint two(void) { return 2; }\n')
    (source / "lib" / "other.c").write_text("this is not C\n")
    (source / "freebench" / "main.c").write_text(
        '#include "../lib/two.h"\nint main(void) { return two(); }\n'
    )
    first = initramfs.build(tmp_path / "lab", source=source)
    program = first.programs / "freebench"
    assert proc.run([program], timeout_seconds=20, check=False).status == 2
    with (source / "lib" / name).open("a") as file:
        file.write("/* changed */\n")
    initramfs.build(tmp_path / "lab", source=source)
    built = (tmp_path / "lab/guest").glob("freebench-*")
    assert len([path for path in built if path.suffix != ".sha256"]) == 2


def test_extra_files_are_put_in_with_their_folders(tmp_path: Path, source: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(b"#!/bin/sh\n")
    tool.chmod(0o700)
    data = tmp_path / "data"
    data.write_bytes(b"\0\1")
    data.chmod(0o600)
    files = {"/opt/lab/tool": tool, "etc/data": data, "/sbin/tool": tool}
    plain = initramfs.build(tmp_path / "lab", source=source)
    built = initramfs.build(tmp_path / "lab", files, source)
    found = parse(built.path.read_bytes())
    assert built.hash != plain.hash
    assert list(found).index("opt/lab") < list(found).index("opt/lab/tool")
    assert found["opt/lab/tool"] == Entry.file("opt/lab/tool", b"#!/bin/sh\n", 0o755)
    assert found["etc/data"] == Entry.file("etc/data", b"\0\1", 0o644)
    assert stat.S_ISLNK(found["sbin"].mode)


def test_a_missing_extra_file_is_the_users_mistake(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        initramfs.build(tmp_path / "lab", {"x": tmp_path / "nowhere"}, source)


def test_a_compile_error_shows_the_compilers_lines(tmp_path: Path, source: Path) -> None:
    (source / "agent" / "main.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(BuildError) as caught:
        initramfs.build(tmp_path / "lab", source=source)
    assert any("main.c:1" in line and "nothing" in line for line in caught.value.errors)
    assert not list((tmp_path / "lab").rglob("initramfs-*"))


def test_a_warning_is_an_error(tmp_path: Path, source: Path) -> None:
    (source / "agent" / "main.c").write_text("int main(void) { int unused; return 0; }\n")
    with pytest.raises(BuildError):
        initramfs.build(tmp_path / "lab", source=source)


def test_without_a_compiler_the_host_is_named(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="gcc is not installed") as caught:
        initramfs.build(tmp_path / "lab", source=source)
    assert "make setup" in str(caught.value)


def test_a_dynamic_busybox_is_refused(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "busybox").write_bytes(b"\x7fELF.../lib64/ld-linux-x86-64.so.2\0")
    (tools / "busybox").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    with pytest.raises(HostError, match="statically"):
        initramfs.build(tmp_path / "lab", source=source)


def test_the_checkout_has_its_sources() -> None:
    assert (initramfs.source_folder() / "agent").is_dir()
