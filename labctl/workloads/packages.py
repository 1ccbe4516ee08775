"""Debian packages of workloads, with dependencies that the host lacks, unpacked without root."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl import files, proc
from labctl.arch import Architecture
from labctl.errors import CommandError, HostError
from labctl.workloads.closure import Fault

PROGRAMS = ("apt-get", "dpkg-deb")
_SECONDS = 600.0
_INSTALLED = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", re.MULTILINE)
_VERSION = re.compile(r"^Version: (\S+)$", re.MULTILINE)
_UNKNOWN = re.compile(r"(?:Unable to locate package|No packages found|candidate.* for) *(\S*)")
_PROGRAMS = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/games")
_APT = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1")
_HINT = "`apt-get update` refreshes the list of packages; `apt-cache policy` shows what it has"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The root of unpacked packages; `programs` are those of the named packages, by name."""

    root: Path
    programs: dict[str, Path]

    @property
    def library_folders(self) -> tuple[Path, ...]:
        """Folders in which a loader must search the libraries of the packages."""
        found = {one.parent for one in self.root.rglob("*.so*") if one.is_file()}
        return tuple(sorted(found))


def unpacked(names: Sequence[str], store: Path, arch: Architecture) -> Unpacked:
    """Return packages, downloaded and unpacked into `store` unless they are there.

    Raises:
        Fault: a package does not exist, or the guest's architecture is not the host's.
        HostError: apt-get is not installed, or the packages cannot be downloaded.
    """
    if arch.is_foreign:
        raise Fault(
            f"packages are for this host's architecture, but the guest is {arch.name}",
            "use `build:` or `make:`, which compile for the guest",
        )
    if not all(map(shutil.which, PROGRAMS)):
        raise HostError("apt-get and dpkg-deb are needed for `packages:` of a workload")
    versions = _versions(names)
    key = hashlib.sha256("\0".join(f"{n}={v}" for n, v in versions.items()).encode())
    root = store / f"root-{key.hexdigest()[:16]}"
    own = {name: store / f"own-{name}-{_plain(versions[name])}" for name in names}
    for name, version in versions.items():
        package = store / f"{name}_{_plain(version)}.deb"
        if not package.is_file():
            _download(name, version, package)
        if name in own:
            _unpack([package], own[name])
    _unpack([store / f"{name}_{_plain(version)}.deb" for name, version in versions.items()], root)
    programs = {
        path.name: root / folder / path.name
        for place in own.values()
        for folder in _PROGRAMS
        if (place / folder).is_dir()
        for path in sorted((place / folder).iterdir())
    }
    return Unpacked(root, programs)


def _versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of the named packages and of dependencies that are not installed."""
    try:
        words = [*_APT, "-s", "--no-install-recommends", "install", *names]
        found = dict(_INSTALLED.findall(proc.run(words, timeout_seconds=_SECONDS).text))
        # An upgrade of the C library would not match the loader of the host.
        found.pop("libc6", None)
        for name in names:
            if name not in found:  # installed on the host
                shown = ["apt-cache", "show", "--no-all-versions", name]
                version = _VERSION.search(proc.run(shown, timeout_seconds=_SECONDS).text)
                if version is None:
                    raise Fault(f"package {name} not found", _HINT)
                found[name] = version[1]
    except CommandError as error:
        unknown = _UNKNOWN.search(error.output)
        if unknown:
            raise Fault(f"package {unknown[1] or names[0]} not found", _HINT) from error
        what = f"packages {', '.join(names)} cannot be resolved: {error.last_line}"
        raise Fault(what, _HINT) from error
    return dict(sorted(found.items()))


def _download(name: str, version: str, package: Path) -> None:
    package.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=package.parent) as folder:
        try:
            words = [*_APT, "download", f"{name}={version}"]
            proc.run(words, cwd=Path(folder), timeout_seconds=_SECONDS)
        except CommandError as error:
            raise HostError(
                f"package {name} {version} cannot be downloaded: {error.last_line}",
                hint="labctl downloads a package once: connect this host for the first run",
            ) from error
        found = list(Path(folder).glob("*.deb"))
        if not found:
            raise HostError(f"package {name} {version}: apt-get downloaded nothing")
        found[0].replace(package)


def _unpack(packages: Sequence[Path], folder: Path) -> None:
    if folder.is_dir():
        return
    partial = files.unfinished(folder)
    partial.mkdir(parents=True)
    for package in packages:
        try:
            proc.run(["dpkg-deb", "-x", package, partial], timeout_seconds=_SECONDS)
        except CommandError as error:
            package.unlink(missing_ok=True)
            raise HostError(
                f"package cannot be unpacked: {error.output.strip()}",
                where=str(package),
                hint="run the command again: labctl downloads it again",
            ) from error
    partial.rename(folder)


def _plain(version: str) -> str:
    return version.replace(":", "%3a")
