"""Diagnoses of build tools, kernel sources and disk space. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labctl.doctor.diagnosis import Diagnosis, ok
from labctl.units import GIB, rough_size

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
# Those that only some workloads need.
WORKLOAD_PACKAGES = {
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
# An unpacked source takes 1.5 to 1.7 GiB, a build 0.2 GiB, a debug build more.
SOURCE_BYTES = 5 * GIB // 2
SPARE_BYTES = GIB


def compilers(version: str, missing: Sequence[str], failures: Mapping[str, str]) -> Diagnosis:
    """Diagnose the build tools.

    `missing` are programs that are not installed; `failures` maps a Debian package to
    the compiler error of a program that needs it, empty if it compiled.
    """
    wrong = {package: why for package, why in failures.items() if why}
    if not missing and not wrong:
        return ok("compilers", f"{version}; static and libelf test programs compile")
    parts = [f"not installed: {', '.join(missing)}"] if missing else []
    parts += list(wrong.values())
    packages = dict.fromkeys([*(PACKAGES[tool] for tool in missing), *wrong])
    return Diagnosis(
        "compilers", "fail", "; ".join(parts), f"sudo apt-get install {' '.join(packages)}"
    )


def workloads(missing: Mapping[str, Sequence[str]]) -> Diagnosis:
    """Diagnose the tools for `root:` and `packages:`; `missing` are programs by workload."""
    name = "workloads"
    wrong = {workload: programs for workload, programs in missing.items() if programs}
    if not wrong:
        return ok(name, "the programs that make roots and unpack packages are installed")
    what = "; ".join(f"{name} needs {', '.join(programs)}" for name, programs in wrong.items())
    every = (program for programs in wrong.values() for program in programs)
    packages = dict.fromkeys(WORKLOAD_PACKAGES[program] for program in every)
    mend = f"sudo apt-get install {' '.join(packages)}"
    return Diagnosis(name, "fail", f"not installed: {what}", mend)


def arch(name: str, qemu: str, failures: Sequence[str], setup: str) -> Diagnosis:
    """Diagnose the tools for kernels and guests of an architecture; `failures` are errors.

    `qemu` is the version of its QEMU, `setup` the command that installs the tools.
    """
    wrong = list(filter(None, failures))
    if wrong:
        return Diagnosis(name, "fail", "; ".join(wrong), setup)
    return ok(name, f"QEMU {qemu}; a static program compiles; busybox is installed")


def ccache(version: str, *, used: bool, unverified: Sequence[str] = ()) -> Diagnosis:
    """Diagnose ccache: installed, used as gcc, and without `unverified` settings."""
    if not version:
        what = "not installed: kernels removed by `labctl clean` are compiled again from scratch"
        return Diagnosis("ccache", "warn", what, "sudo apt-get install ccache")
    if not used:
        what = f"{version}, but gcc does not use it"
        return Diagnosis("ccache", "warn", what, "export PATH=/usr/lib/ccache:$PATH")
    if unverified:
        named = " and ".join(unverified)
        what = f"{version}, with {named}: a damaged object in the cache gets into kernels unseen"
        mend = "; ".join(f"ccache --set-config {name}=false" for name in unverified)
        return Diagnosis("ccache", "warn", what, f"{mend}; ccache --clear")
    return ok("ccache", f"{version}, used by gcc")


def sources(
    missing: Sequence[str], count: int, failures: Sequence[tuple[str, str]] = ()
) -> Diagnosis:
    """Diagnose the kernel sources; `missing` are Debian packages, `count` is of kernels.

    `failures` are the errors of other sources, each with its fix.
    """
    if missing:
        return Diagnosis(
            "sources",
            "fail",
            f"not installed: {', '.join(missing)}",
            f"sudo apt-get install {' '.join(missing)}",
        )
    if failures:
        what = "; ".join(what for what, _ in failures)
        fixes = dict.fromkeys(fix for _, fix in failures if fix)
        mend = "; ".join(fixes) or "correct `source:` in lab.yaml"
        return Diagnosis("sources", "fail", what, mend)
    return ok("sources", f"found for {count} kernel{'s' if count != 1 else ''}")


def disk(free_bytes: int, unbuilt: int, place: str) -> Diagnosis:
    """Diagnose the disk space for builds; `unbuilt` counts the sources without a tree."""
    need = SPARE_BYTES + unbuilt * SOURCE_BYTES
    free = f"{rough_size(free_bytes)} free in {place}"
    if free_bytes < need:
        what = f"{free}, builds and runs may need {rough_size(need)}"
        mend = "labctl clean   # removes builds; or set `state:` to a folder on another disk"
        return Diagnosis("disk", "fail", what, mend)
    return ok("disk", f"{free}, at most {rough_size(need)} needed")


def state_folder(failure: str, place: str) -> Diagnosis:
    """Diagnose the state folder; `failure` is the error on writing, empty if it worked."""
    if not failure:
        return ok("state folder", f"{place} is writable")
    mend = f"sudo chown -R $USER {place}"
    if "ermission" not in failure:
        mend = "free disk space, or set `state:` to a folder on another disk"
    return Diagnosis("state folder", "fail", f"{place} is not writable: {failure}", mend)
