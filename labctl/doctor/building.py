"""Judges what kernels and guest programs are built with, and where it all goes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labctl.doctor.diagnosis import Diagnosis, ok
from labctl.units import GIB

# Debian's package of each program.
PACKAGES = {
    "make": "make",
    "gcc": "gcc",
    "ld": "binutils",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "patch": "patch",
    "xz": "xz-utils",
    "flock": "util-linux",
    "setpriv": "util-linux",
    "busybox": "busybox-static",
}
# An unpacked source has 1.5 to 1.7 GiB, a build of it 0.2 GiB, a debug build more.
SOURCE_BYTES = 5 * GIB // 2
SPARE_BYTES = GIB


def compilers(version: str, missing: Sequence[str], failures: Mapping[str, str]) -> Diagnosis:
    """Judge the tools of a build.

    `missing` are programs that are not installed; `failures` holds, by the Debian
    package that it needs, why something did not compile.
    """
    wrong = {package: why for package, why in failures.items() if why}
    if not missing and not wrong:
        return ok("compilers", f"{version}; a static program and one with libelf compile")
    told = [f"not installed: {', '.join(missing)}"] if missing else []
    told += list(wrong.values())
    packages = dict.fromkeys([*(PACKAGES[tool] for tool in missing), *wrong])
    return Diagnosis(
        "compilers", "fail", "; ".join(told), f"sudo apt-get install {' '.join(packages)}"
    )


def arch(name: str, qemu: str, failures: Sequence[str], setup: str) -> Diagnosis:
    """Judge the tools for kernels and guests of an architecture by what failed of them.

    `qemu` is the version of its QEMU, `setup` the command that installs all of them.
    """
    wrong = list(filter(None, failures))
    if wrong:
        return Diagnosis(name, "fail", "; ".join(wrong), setup)
    return ok(name, f"QEMU {qemu}; a static program compiles; busybox is there")


def ccache(version: str, *, used: bool) -> Diagnosis:
    """Judge ccache: whether it is installed, and whether gcc is called through it."""
    if not version:
        what = "not installed: a kernel that was built once and cleared away is compiled again"
        return Diagnosis("ccache", "warn", what, "sudo apt-get install ccache")
    if not used:
        what = f"{version}, and gcc is not called through it"
        return Diagnosis("ccache", "warn", what, "export PATH=/usr/lib/ccache:$PATH")
    return ok("ccache", f"{version}, gcc is called through it")


def sources(missing: Sequence[str], count: int) -> Diagnosis:
    """Judge the source packages of `count` kernels; `missing` are the packages."""
    if missing:
        return Diagnosis(
            "sources",
            "fail",
            f"not installed: {', '.join(missing)}",
            f"sudo apt-get install {' '.join(missing)}",
        )
    return ok("sources", f"those of {count} kernel{'s' if count != 1 else ''} are there")


def disk(free_bytes: int, unbuilt: int, place: str) -> Diagnosis:
    """Judge the space for builds; `unbuilt` counts the sources that have no tree yet."""
    need = SPARE_BYTES + unbuilt * SOURCE_BYTES
    told = f"{free_bytes / GIB:.1f} GiB free under {place}"
    if free_bytes < need:
        what = f"{told}, builds and runs may need {need / GIB:.1f} GiB"
        mend = "labctl clean   # removes what was built; or `state:` on another disk"
        return Diagnosis("disk", "fail", what, mend)
    return ok("disk", f"{told}, at most {need / GIB:.1f} GiB needed")


def state_folder(failure: str, place: str) -> Diagnosis:
    """Judge the folder for all that labctl makes by why writing there failed, empty if not."""
    if not failure:
        return ok("state folder", f"{place} can be written")
    mend = f"sudo chown -R $USER {place}"
    if "ermission" not in failure:
        mend = "make room there, or `state:` on another disk"
    return Diagnosis("state folder", "fail", f"{place} cannot be written: {failure}", mend)
