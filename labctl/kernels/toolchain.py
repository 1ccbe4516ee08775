"""The programs that compile a kernel: which they are, whether they are there, their versions."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from labctl import proc
from labctl.arch import X86_64, Architecture
from labctl.errors import HostError
from labctl.files import read_json, write_json
from labctl.host import tools
from labctl.kernels.hashed import Hashed
from labctl.lab.state import StateFolder

_TOOLS = ("make", "flock", "gcc", "ld", "flex", "bison", "bc")
# Prefixed for another architecture; the host's gcc then still compiles make's own programs.
_GNU = {"CC": "gcc", "LD": "ld"}
# Documentation/kbuild/llvm.rst: what make uses with LLVM=1, also for its own programs.
_LLVM = {
    "CC": "clang",
    "LD": "ld.lld",
    "AR": "llvm-ar",
    "NM": "llvm-nm",
    "OBJCOPY": "llvm-objcopy",
    "OBJDUMP": "llvm-objdump",
    "READELF": "llvm-readelf",
    "STRIP": "llvm-strip",
}
_LLVM_PACKAGES = ("clang", "lld", "llvm")
# Tools whose versions are in every .config if they are installed.
_IN_CONFIG = ("pahole", "rustc", "bindgen")
# Programs that options need, and their Debian packages.
_OF_OPTIONS = {
    "CONFIG_DEBUG_INFO_BTF": ("pahole", "dwarves"),
    "CONFIG_KERNEL_BZIP2": ("bzip2", "bzip2"),
    "CONFIG_KERNEL_LZ4": ("lz4", "lz4"),
    "CONFIG_KERNEL_LZO": ("lzop", "lzop"),
    "CONFIG_KERNEL_XZ": ("xz", "xz-utils"),
    "CONFIG_KERNEL_ZSTD": ("zstd", "zstd"),
    "CONFIG_MODULE_SIG": ("openssl", "openssl libssl-dev"),
}
# Programs that run the next compiler of the same name on PATH.
_CACHES = ("ccache", "sccache", "distcc", "icecc")
_NONE: Mapping[str, str] = {}


def check_tools(arch: Architecture = X86_64, variables: Mapping[str, str] = _NONE) -> None:
    """Check that the tools for a build with make's `variables` are installed.

    Raises:
        HostError: names what is missing.
    """
    compilers = _programs(arch, variables)
    _check_compiler(compilers, arch, variables)
    others = (tool for tool in _TOOLS if not (variables.get("LLVM") and tool in _GNU.values()))
    tools.check_installed(others, arch)


def check_options(config: Mapping[str, str]) -> None:
    """Check that the tools that the options of a final .config need are installed.

    Raises:
        HostError: names the first that is missing.
    """
    for option, (program, package) in _OF_OPTIONS.items():
        if config.get(option) == "y" and shutil.which(program) is None:
            raise HostError(
                f"{option}=y needs {program}, which is not installed",
                hint=f"`apt install {package}`, or set {option}=n in a kconfig fragment",
            )


def compiler(arch: Architecture = X86_64, variables: Mapping[str, str] = _NONE) -> str:
    """Return the versions of compiler and linker.

    Raises:
        HostError: they are not installed.
    """
    programs = _programs(arch, variables)
    _check_compiler(programs, arch, variables)
    used = [_words(arch, variables)[key][-1] for key in _GNU]
    return ", ".join(tools.version_text(tool).partition("\n")[0] for tool in used)


def tools_hash(arch: Architecture, state: Path, variables: Mapping[str, str] = _NONE) -> str:
    """Return the hash of the tools' programs, which may change without their versions.

    Hashes are cached in `state`, the state folder.

    Raises:
        HostError: the compiler is not installed.
    """
    programs = _programs(arch, variables)
    _check_compiler(programs, arch, variables)
    memory = StateFolder(state).source_hashes
    others = () if variables.get("LLVM") else (f"{arch.cross_compile}as",)
    found = {name: _found(name) for name in (*programs, *others, *_IN_CONFIG)}
    hashes = {n: Hashed.remembered(path, memory).sha256 for n, path in found.items() if path}
    digest = hashlib.sha256("\0".join(dict.fromkeys(hashes.values())).encode())
    name = _words(arch, variables)["CC"][-1]
    core = _core_of(name, hashes[name], StateFolder(state).compilers)
    if core is not None:
        digest.update(Hashed.remembered(core, memory).sha256.encode())
    return digest.hexdigest()


def _programs(arch: Architecture, variables: Mapping[str, str]) -> list[str]:
    words = _words(arch, variables).values()
    return list(dict.fromkeys(word for each in words for word in each))


def _words(arch: Architecture, variables: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the programs of each of make's variables; the last is not a wrapper like ccache."""
    llvm = variables.get("LLVM", "")
    if llvm:
        prefix, suffix = (llvm, "") if llvm.endswith("/") else ("", _suffix(llvm))
        usual = {key: f"{prefix}{name}{suffix}" for key, name in _LLVM.items()}
    else:
        usual = {key: f"{arch.cross_compile}{name}" for key, name in _GNU.items()}
    own = {key: _without_options(variables.get(key, "")) for key in _LLVM}
    return {key: own[key] or [usual[key]] for key in _LLVM if own[key] or key in usual}


def _suffix(llvm: str) -> str:
    return llvm if llvm.startswith("-") else ""


def _without_options(value: str) -> list[str]:
    return [word for word in value.split() if not word.startswith("-")]


def _check_compiler(
    programs: Iterable[str], arch: Architecture, variables: Mapping[str, str]
) -> None:
    llvm, hint = variables.get("LLVM", ""), None
    if llvm and not llvm.endswith("/"):
        packages = " ".join(f"{name}{_suffix(llvm)}" for name in _LLVM_PACKAGES)
        hint = f"`apt install {packages}` installs them"
    elif variables:
        hint = "install it, or change `make:` or `compiler:` of the kernel in lab.yaml"
    tools.check_installed(programs, arch, hint)


def _core_of(name: str, version: str, memory: Path) -> Path | None:
    """Return the path of gcc's cc1; gcc is asked once per `version`, a hash of gcc."""
    known = read_json(memory)
    if version not in known:
        done = proc.run([name, "-print-prog-name=cc1"], timeout_seconds=30, check=False)
        write_json(memory, known | {version: done.text.strip()})
    path = Path(str(read_json(memory).get(version)))
    return path if path.is_absolute() and path.is_file() else None


def _found(name: str) -> Path | None:
    """Return the path of a program; links to a compiler cache are passed over."""
    for folder in os.get_exec_path():
        where = shutil.which(name, path=folder)
        found = where and Path(where).resolve()
        if found and (found.name not in _CACHES or name in _CACHES):
            return found
    return None
