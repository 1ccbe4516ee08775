"""Make's variables and the compilers they select."""

import faketree
import pytest

from labctl.arch import X86_64
from labctl.errors import HostError
from labctl.kernels import toolchain
from labctl.kernels.build import Builder

LLVM = ("clang", "ld.lld", "llvm-ar", "llvm-nm", "llvm-objcopy", "llvm-objdump", "llvm-readelf",
        "llvm-strip")  # fmt: skip


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Put fake tools on a PATH that has no others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(*names, version="1.0"):
        for name in names:
            (folder / name).write_text(f"#!/bin/sh\necho '{name} {version}'\n")
            (folder / name).chmod(0o755)

    put("make", "flock", "flex", "bison", "bc")
    return put


def test_llvm_needs_its_tools_but_not_gcc(tools):
    with pytest.raises(HostError, match=r"^clang-19, ld.lld-19, llvm-ar-19, .* not installed") as e:
        toolchain.check_tools(X86_64, {"LLVM": "-19"})
    assert e.value.hint == "`apt install clang-19 lld-19 llvm-19` installs them"
    tools(*(f"{name}-19" for name in LLVM))
    toolchain.check_tools(X86_64, {"LLVM": "-19"})
    assert toolchain.compiler(X86_64, {"LLVM": "-19"}) == "clang-19 1.0, ld.lld-19 1.0"


def test_a_variable_takes_precedence_over_llvm(tools):
    tools(*LLVM, "clang-19")
    both = {"LLVM": "1", "CC": "clang-19 -m64"}
    toolchain.check_tools(X86_64, both)
    assert toolchain.compiler(X86_64, both) == "clang-19 1.0, ld.lld 1.0"


def test_llvm_may_be_a_folder(tools, tmp_path):
    with pytest.raises(HostError, match=f"{tmp_path}/llvm/clang, .*") as caught:
        toolchain.check_tools(X86_64, {"LLVM": f"{tmp_path}/llvm/"})
    assert "change `make:`" in caught.value.hint


def test_a_wrapper_of_the_compiler_is_needed_too(tools):
    tools("gcc", "ld", "gcc-12")
    cached = {"CC": "ccache gcc-12"}
    with pytest.raises(HostError, match=r"^ccache is not installed"):
        toolchain.check_tools(X86_64, cached)
    tools("ccache")
    toolchain.check_tools(X86_64, cached)
    assert toolchain.compiler(X86_64, cached) == "gcc-12 1.0, ld 1.0"


def test_another_program_of_llvm_is_another_hash(tools, tmp_path):
    tools(*LLVM)
    before = toolchain.tools_hash(X86_64, tmp_path, {"LLVM": "1"})
    assert toolchain.tools_hash(X86_64, tmp_path, {"LLVM": "1"}) == before
    tools("llvm-nm", version="1.1")
    assert toolchain.tools_hash(X86_64, tmp_path, {"LLVM": "1"}) != before


def test_a_compiler_behind_a_cache_is_the_same_compiler(tools, tmp_path, monkeypatch):
    tools("gcc", "ld", "as")
    plain = toolchain.tools_hash(X86_64, tmp_path / "state")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "ccache").write_text("#!/bin/sh\nexec true\n")
    (cache / "ccache").chmod(0o755)
    (cache / "gcc").symlink_to("ccache")
    monkeypatch.setenv("PATH", f"{cache}:{tmp_path / 'bin'}")
    assert toolchain.tools_hash(X86_64, tmp_path / "state") == plain
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{cache}")
    assert toolchain.tools_hash(X86_64, tmp_path / "state") == plain


def test_a_tool_that_an_option_needs_is_named_with_the_option(tools):
    toolchain.check_options({"CONFIG_KERNEL_GZIP": "y", "CONFIG_KERNEL_LZ4": "n"})
    with pytest.raises(HostError, match=r"^CONFIG_DEBUG_INFO_BTF=y needs pahole, which") as caught:
        toolchain.check_options({"CONFIG_DEBUG_INFO_BTF": "y"})
    assert "`apt install dwarves`" in caught.value.hint


class Lab:
    def __init__(self, tmp_path, monkeypatch):
        self.source = faketree.pack(tmp_path, monkeypatch)
        self.config = faketree.fragment(tmp_path / "base.config")
        self.builder = Builder(tmp_path / ".labctl", lambda _: None)

    def image(self, **variables):
        kernel = faketree.kernel("stock", self.source, kconfig=(self.config,), make=variables)
        return self.builder.image(kernel)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    return Lab(tmp_path, monkeypatch)


def test_variables_reach_make_and_are_part_of_the_address(lab):
    usual, flags = lab.image(), lab.image(KCFLAGS="-O3")
    assert b"end of object -O3\n" in flags.bzimage.read_bytes()
    assert b"-O3" not in usual.bzimage.read_bytes()
    assert len({usual.hash, flags.hash, lab.image(KCFLAGS="-O2").hash}) == 3


def test_a_local_version_shares_the_objects_but_not_the_image(lab):
    usual, mine = lab.image(), lab.image(LOCALVERSION="-mine")
    assert (usual.release, mine.release) == (faketree.RELEASE, f"{faketree.RELEASE}-mine")
    assert usual.hash != mine.hash
    assert faketree.compiled(mine) == []


def test_a_missing_compiler_is_named_before_anything_is_built(lab, tmp_path):
    kernels = [
        faketree.kernel("stock", lab.source, kconfig=(lab.config,)),
        faketree.kernel("new", lab.source, kconfig=(lab.config,), make={"CC": "gcc-99"}),
    ]
    with pytest.raises(HostError, match=r"^gcc-99 is not installed"):
        lab.builder.images(kernels)
    assert not list((tmp_path / ".labctl").glob("images/*"))
