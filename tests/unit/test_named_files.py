"""Files outside of the source that go into an image: those that options name, and tools."""

import os
import shutil

import faketree
import pytest

from labctl import proc
from labctl.arch import X86_64
from labctl.errors import UserError
from labctl.kernels import kconfig, named_files, toolchain
from labctl.kernels.build import Builder


def digest(tmp_path, text):
    return named_files.digest(kconfig.merge([faketree.fragment(tmp_path / "f.config", text)]))


def test_without_names_there_is_nothing_to_hash(tmp_path):
    text = 'CONFIG_INITRAMFS_SOURCE=""\nCONFIG_MODULE_SIG_KEY="pkcs11:token=a"\n'
    assert digest(tmp_path, f'{text}CONFIG_SYSTEM_TRUSTED_KEYS="certs/a.pem"\n') == ""


@pytest.mark.parametrize(
    "text",
    [
        'CONFIG_SYSTEM_TRUSTED_KEYS="{file}"',
        'CONFIG_MODULE_SIG_KEY="{file}"',
        'CONFIG_INITRAMFS_SOURCE="{file}.cpio {file}"',
        'CONFIG_INITRAMFS_SOURCE="{list}"',
        'CONFIG_INITRAMFS_SOURCE="{folder}"',
        'CONFIG_EXTRA_FIRMWARE_DIR="{folder}"\nCONFIG_EXTRA_FIRMWARE="sub/a sub/b"',
    ],
)
def test_a_named_file_counts_with_its_content(tmp_path, text):
    folder = tmp_path / "named"
    (folder / "sub").mkdir(parents=True)
    file = folder / "sub/a"
    for path in (file, folder / "sub/b", folder / "sub/a.cpio"):
        path.write_text("one")
    (tmp_path / "list").write_text(f"dir /d 755 0 0\nfile /init {file} 755 0 0\n")
    named = text.format(file=file, folder=folder, list=tmp_path / "list") + "\n"
    before = digest(tmp_path, named)
    assert before
    assert digest(tmp_path, named) == before
    info = file.stat()
    file.write_text("two")
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert digest(tmp_path, named) != before
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"f\.config:\d+: CONFIG_\w+ names .*(exist|cannot)"):
        digest(tmp_path, named)


def test_a_file_that_the_source_lacks_is_reported_with_its_option(tmp_path):
    made, lacking = 'MODULE_SIG_KEY="certs/signing_key.pem"', 'SYSTEM_TRUSTED_KEYS="debian/a.pem"'
    text = f"CONFIG_{made}\nCONFIG_{lacking}\n"
    options = kconfig.merge([faketree.fragment(tmp_path / "f.config", text)])
    (tmp_path / "build").mkdir()
    with pytest.raises(UserError, match=r"f\.config:2: .*debian/a\.pem, which does not exist in"):
        named_files.check(options, tmp_path / "src", tmp_path / "build")
    (tmp_path / "src/debian").mkdir(parents=True)
    (tmp_path / "src/debian/a.pem").touch()
    named_files.check(options, tmp_path / "src", tmp_path / "build")


KCONFIG = faketree.KCONFIG + 'config INITRAMFS_SOURCE\n\tstring "Files"\n'


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    source = faketree.pack(tmp_path, monkeypatch, Kconfig=KCONFIG)
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs/init").write_text("one")
    text = f'CONFIG_NUMA=y\nCONFIG_INITRAMFS_SOURCE="{tmp_path}/rootfs"\n'
    fragment = faketree.fragment(tmp_path / "base.config", text)
    return faketree.kernel("stock", source, kconfig=(fragment,))


def test_another_content_of_a_named_file_is_another_image(tmp_path, kernel):
    builder = Builder(tmp_path / ".labctl", lambda _: None)
    first = builder.image(kernel)
    assert builder.image(kernel) == first
    (tmp_path / "rootfs/init").write_text("two")
    assert builder.image(kernel).hash != first.hash


def test_a_named_file_that_changes_during_the_build_is_reported(tmp_path, kernel):
    def show(progress):
        if progress.stage == "configuring":
            (tmp_path / "rootfs/init").write_text("two")

    with pytest.raises(UserError, match="files named by options of kernel stock changed"):
        Builder(tmp_path / ".labctl", show).image(kernel)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A PATH with a compiler of its own, which says what the real one says."""
    folder = tmp_path / "tools"
    folder.mkdir()
    core = folder / "cc1"
    core.write_text("core")
    gcc = folder / "gcc"
    # Not a link to ccache, which would run the next gcc on PATH: this one.
    real = toolchain._found("gcc")
    gcc.write_text(
        f'#!/bin/sh\n[ "$1" = -print-prog-name=cc1 ] && echo {core} && exit\nexec {real} "$@"\n'
    )
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize("name", ["gcc", "cc1"])
def test_a_compiler_that_is_replaced_in_place_makes_other_images(tmp_path, tools, name):
    def digest():
        return toolchain.compiler(X86_64), toolchain.tools_hash(X86_64, tmp_path / "lab")

    before = digest()
    assert digest() == before
    path = tools / name
    info = path.stat()
    path.write_text(path.read_text().replace("e", "e", 1) + "\n#patched\n")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    after = digest()
    assert after[0] == before[0]  # it says the same of itself
    assert after[1] != before[1]


def test_the_compiler_is_read_and_asked_once(tmp_path, tools, monkeypatch):
    before = toolchain.tools_hash(X86_64, tmp_path / "lab")
    monkeypatch.setattr(proc, "run", None)
    monkeypatch.setattr("hashlib.file_digest", None)
    assert toolchain.tools_hash(X86_64, tmp_path / "lab") == before
