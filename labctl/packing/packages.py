"""The Python packages that a packed lab brings: those that `run` imports, as installed here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import labctl
from labctl.arch import X86_64
from labctl.errors import HostError
from labctl.lab.models import Lab
from labctl.workloads.closure import Fault, closure

NEEDED = ("click", "msgspec", "pexpect", "pydantic", "pyyaml", "qemu.qmp", "rich", "tabulate")
# For interim analyses, and for reports.
STATISTICS = ("numpy", "scipy")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_GLIBC = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|util|pthread|resolv|nsl|anl))\.so\.\d+$")
_GENERATED = ("_guest", "_lab.yaml", "_patches")  # of an installed labctl; only builds need them
_UNUSED = {"__pycache__", "tests"}


def statistics_for(lab: Lab, names: Sequence[str]) -> dict[str, str]:
    """Return the experiments whose measurement needs STATISTICS, each with the reason."""
    found = {}
    for name in names:
        rule = lab.resolve_statistics(name)
        if rule.stop_at_half_width is not None:
            found[name] = "stop_at_half_width"
        elif rule.repetitions == "auto":
            found[name] = "repetitions: auto"
    return found


def versions(roots: Sequence[str]) -> dict[str, str]:
    """Return the packages that some packages need, with themselves, by name with version.

    Raises:
        HostError: one is not installed.
    """
    found: dict[str, str] = {}
    ahead = list(roots)
    while ahead:
        name = _canonical(ahead.pop())
        if name in found:
            continue
        distribution = _installed(name)
        if distribution is None and name not in map(_canonical, roots):
            continue  # needed elsewhere only: on another system or by an older Python
        if distribution is None:
            raise HostError(f"package {name} is not installed", hint=f"`pip install {name}`")
        found[name] = distribution.version
        for line in distribution.requires or ():
            required, _, marker = line.partition(";")
            if "extra" not in marker and (match := _NAME.match(required.strip())):
                ahead.append(match[0])
    return dict(sorted(found.items()))


def files_of(name: str) -> Iterator[tuple[str, Path]]:
    """Yield the files of an installed package, by path below site-packages."""
    distribution = _installed(name)
    assert distribution is not None
    for path in distribution.files or ():
        outside = path.is_absolute() or ".." in path.parts
        if outside or _UNUSED & set(path.parts) or path.suffix == ".pyc":
            continue
        located = Path(str(distribution.locate_file(path)))
        if located.is_file():
            yield str(path), located


def libraries_of(files: Iterable[Path]) -> dict[str, Path]:
    """Return the shared libraries of the system that extension modules need, by name.

    Those of glibc are left out: Python itself needs them. Nearly every host has the others,
    such as libgcc_s, but they are no part of Python.

    Raises:
        HostError: a library is not installed.
    """
    found: dict[str, Path] = {}
    for path in files:
        if path.suffix == ".so":
            try:
                needed = closure(path, X86_64).system
            except Fault as fault:
                raise HostError(fault.what, hint=fault.hint) from fault
            named = {Path(name).name: one for name, one in needed.items() if isinstance(one, Path)}
            found |= {name: one for name, one in named.items() if not _GLIBC.match(name)}
    return found


def files_of_labctl() -> Iterator[tuple[str, Path]]:
    """Yield the files of labctl itself, by path below site-packages."""
    package = Path(labctl.__file__).parent
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        is_unused = inside.parts[0] in _GENERATED or _UNUSED & set(inside.parts)
        if path.is_file() and not is_unused and path.suffix != ".pyc":
            yield str(package.name / inside), path


def _installed(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
