"""Make's variables of a kernel: `make:`, `compiler:` and `localversion:`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, WithJsonSchema

from labctl.arch import Architecture
from labctl.lab.document import KeyPath
from labctl.lab.problems import Findings
from labctl.units import quote

if TYPE_CHECKING:
    from labctl.lab.entries import KernelEntry

_Text = Annotated[str, WithJsonSchema({"type": ["string", "number"]})]
Make = Annotated[
    dict[str, _Text],
    Field(
        description="Variables of make, as on its command line, in addition to those of the base."
        " Example: {LLVM: 1, KCFLAGS: -O3}.",
    ),
]
Compiler = Annotated[
    str | None,
    Field(
        pattern=r"^(clang|gcc)(-[0-9]+)?$",
        description="Compiler, with a version if it is not the default one: clang-19 is"
        " `make: {LLVM: -19}`, gcc-12 is `make: {CC: gcc-12}`.",
    ),
]
LocalVersion = Annotated[
    str | None,
    Field(
        pattern=r"^[A-Za-z0-9._+~-]{0,40}$",
        description="Text appended to the kernel's release, as by `make LOCALVERSION=TEXT`."
        " Example: -mine.",
    ),
]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOCALVERSION = "LOCALVERSION"
_FOLDER = "labctl selects the source and build folders"
_ARCH = "use `arch:` of the kernel"
_CONFIG = "use `config:` and `kconfig:` of the kernel"
_FIXED = "labctl fixes it, so that the same inputs give the same image"
_OUTPUT = "labctl reads the progress from make's usual output"
_ITSELF = "it changes make itself"
_NO_MODULES = "modules are not built: set options to y"
_REFUSED = {
    **dict.fromkeys(("O", "KBUILD_OUTPUT", "KBUILD_SRC", "srctree", "objtree", "VPATH"), _FOLDER),
    **dict.fromkeys(("ARCH", "SRCARCH", "SUBARCH", "CROSS_COMPILE"), _ARCH),
    **dict.fromkeys(("M", "KBUILD_EXTMOD", "MO"), _NO_MODULES),
    **dict.fromkeys(("V", "KBUILD_VERBOSE"), _OUTPUT),
    **dict.fromkeys(("MAKEFLAGS", "GNUMAKEFLAGS", "MFLAGS", "MAKEFILES", "SHELL"), _ITSELF),
    **dict.fromkeys(("MAKE", "MAKECMDGOALS", "PATH", "LC_ALL"), _ITSELF),
    **dict.fromkeys((_LOCALVERSION, "KERNELRELEASE"), "use `localversion:` of the kernel"),
}
_REFUSED_STARTS = {"KCONFIG_": _CONFIG, "KBUILD_BUILD_": _FIXED, "KBUILD_DEF": _CONFIG}


def check(entries: Sequence[KernelEntry], path: KeyPath, found: Findings) -> None:
    """Record the errors of a kernel's variables; `entries` has its bases before itself."""
    own = entries[-1]
    for name, value in own.make.items():
        place = (*path, "make", name)
        reason = _reason(name)
        if not _NAME.fullmatch(name):
            what = f"{quote(name)} is not a name of a variable"
            found.add(place, what, "expected letters, digits and _", at_key=True)
        elif reason:
            found.add(place, f"variable {name} is not supported: {reason}", None, at_key=True)
        elif "$" in value or not value.isprintable():
            hint = "write the value itself: its text is part of the image's address"
            found.add(place, f"invalid value {quote(value)}: make would expand it", hint)
    both = {"CC", "LLVM"} & {name for entry in entries for name in entry.make}
    if own.compiler is not None and both:
        what = f"conflicts with `make:`, which sets {' and '.join(sorted(both))}"
        found.add((*path, "compiler"), what, "remove one of the two", at_key=True)


def resolved(entries: Sequence[KernelEntry], arch: Architecture) -> dict[str, str]:
    """Return the variables of a kernel, `entries` with its bases before itself."""
    variables = {name: value for entry in entries for name, value in entry.make.items()}
    compilers = [entry.compiler for entry in entries if entry.compiler is not None]
    versions = [entry.localversion for entry in entries if entry.localversion is not None]
    if compilers:
        variables |= _of_compiler(compilers[-1], arch)
    if versions and versions[-1]:
        variables[_LOCALVERSION] = versions[-1]
    return variables


def shared(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that change objects: a build folder is for one value of these."""
    return {name: value for name, value in variables.items() if name != _LOCALVERSION}


def _of_compiler(compiler: str, arch: Architecture) -> dict[str, str]:
    name, dash, version = compiler.partition("-")
    if name == "clang":
        return {"LLVM": f"{dash}{version}" or "1"}
    return {"CC": f"{arch.cross_compile}{compiler}"} if version else {}


def _reason(name: str) -> str:
    starts = (reason for start, reason in _REFUSED_STARTS.items() if name.startswith(start))
    return _REFUSED.get(name) or next(starts, "")
