"""Build selftests of memory management for the guest: the kernel tree's and a series' own.

Programs are built one by one and statically, as a guest has no libraries. A test of the
tree that does not build is recorded with the reason; one of a series is an error.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labctl import files, proc
from labctl.errors import BuildError, CommandError
from labctl.kernels.make import Make
from labctl.kernels.toolchain import compiler
from labctl.lab.state import StateFolder
from labctl.series.patch import Series
from labctl.verify.programs import Program
from labctl.verify.settings import Place

_FOLDERS = ("tools/testing/selftests/mm", "tools/testing/selftests/vm")  # new name, old name
_SHARED = ("vm_util.c", "thp_settings.c", "uffd-common.c")
_FLAGS = ("-std=gnu11", "-O2", "-w", "-static", "-pthread", "-D_GNU_SOURCE")
_LIBRARIES = ("-lnuma", "-lcap", "-lrt")
_COMPILE_SECONDS = 120.0
_IN_GUEST = "/selftests"
_TIMEOUT_SECONDS = 180.0
_ADDED_TIMEOUT_SECONDS = 900.0  # for tests that map much, on a debug kernel
_ERROR_COLUMNS = 120

# The selftests to run, with their arguments as in run_vmtests.sh. Old and new names of a
# test are both listed. Tests that need a disk, a module, another host or hours are omitted.
_RUNS: Mapping[str, tuple[str, ...]] = {
    "madv_populate": (),
    "map_fixed_noreplace": (),
    "map_populate": (),
    "mlock-random-test": (),
    "mlock2-tests": (),
    "mremap_dontunmap": (),
    "mremap_test": (),
    "mrelease_test": (),
    "on-fault-limit": (),
    "soft-dirty": (),
    "split_huge_page_test": (),
    "thuge-gen": (),
    "ksm_functional_tests": (),
    "mseal_test": (),
    "pagemap_ioctl": (),
    "hugetlb-madvise": (),
    "hugepage-mmap": (),
    "uffd-unit-tests": (),
    "userfaultfd": ("anon", "16", "2"),
}
NAMES = tuple(_RUNS)
_HUGE_PAGES = 32
_NEEDS_HUGE_PAGES = ("hugetlb-madvise", "hugepage-mmap", "thuge-gen")


_LISTED = re.compile(r"TEST_GEN_(?:FILES|PROGS|PROGS_EXTENDED) \+= ([\w -]+)", re.ASCII)
_RUN = re.compile(r"run_test \./([\w-]+)(.*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Built:
    """The built programs, their files by path in the guest, and why others are missing."""

    files: dict[str, Path] = field(default_factory=dict)
    programs: list[Program] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def build(make: Make, state: Path) -> Built:
    """Build the selftests of make's tree, unless they are built already.

    `state` is the lab's state folder.

    Raises:
        BuildError: the tree's user headers cannot be built.
    """
    source = next(
        (make.tree.src / name for name in _FOLDERS if (make.tree.src / name).is_dir()), None
    )
    if source is None:
        return Built(missing={"all": "source has no mm selftests"})
    folder = StateFolder(state).selftests / _address(make, source)
    record = folder / "built.json"
    missing = files.read_json(record).get("missing")
    if not isinstance(missing, dict):  # never built, or not completely
        folder.mkdir(parents=True, exist_ok=True)
        make.compile(["headers"])
        missing = {n: why for n in _RUNS if (why := _compile(make, source, n, folder)) is not None}
        files.write_json(record, {"missing": missing})
    names = [name for name in _RUNS if name not in missing]
    return Built(
        files={f"{_IN_GUEST}/{name}": folder / name for name in names},
        programs=[_program(name) for name in names],
        missing=missing,
    )


def added(series: Series) -> dict[str, list[tuple[str, ...]]]:
    """Return the mm selftests that a series, or one below it, adds: the arguments of each run.

    A test is one that its Makefile builds. The runs are those of run_vmtests.sh; a test that
    it does not run is run once.
    """
    lines: dict[str, list[str]] = {"Makefile": [], "run_vmtests.sh": []}
    for patch in series.every:
        for change in patch.changes():
            folder, _, name = (change.new or "").rpartition("/")
            if folder in _FOLDERS and name in lines:
                lines[name] += [line[1:] for line in change.body if line.startswith("+")]
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in lines["Makefile"]:
        if listed := _LISTED.fullmatch(line):
            found |= {name: [] for name in listed[1].split()}
    for line in lines["run_vmtests.sh"]:
        if (run := _RUN.search(line)) and run[1] in found:
            found[run[1]].append(tuple(shlex.split(run[2], comments=True)))
    return {name: runs or [()] for name, runs in found.items()}


def build_added(make: Make, state: Path, series: Series, kernel: str) -> Built:
    """Build the selftests that a series adds, in make's tree with the series applied.

    Raises:
        BuildError: one of them does not compile.
        UserError: a patch does not apply.
    """
    make.tree.prepare(series)
    source = next(make.tree.src / name for name in _FOLDERS if (make.tree.src / name).is_dir())
    folder = StateFolder(state).selftests / f"{_address(make, source)}-{series.hash[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    make.compile(["headers"])
    built = Built()
    for name, runs in added(series).items():
        why = _compile(make, source, name, folder)
        if why is not None:
            what = f"selftest {name} of the series of {kernel} does not compile"
            raise BuildError(what, log=str(make.log), errors=[why])
        inside = f"{_IN_GUEST}/{kernel}/{name}"
        built.files[inside] = folder / name
        for number, words in enumerate(runs, 1):
            built.programs.append(
                Program(
                    "selftests",
                    name if number == 1 else f"{name}-{number}",
                    (inside, *words),
                    _ADDED_TIMEOUT_SECONDS,
                    frozenset({Place.DEFAULTS, Place.OTHER_DEFAULTS}),
                )
            )
    return built


def _address(make: Make, source: Path) -> str:
    digest = hashlib.sha256(f"{compiler()}{_FLAGS}{_LIBRARIES}{sorted(_RUNS)}".encode())
    for path in sorted(source.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{make.tree.source.key}-{digest.hexdigest()[:12]}"


def _compile(make: Make, source: Path, name: str, folder: Path) -> str | None:
    """Build one test; return the reason if it cannot be built, else None."""
    if not (source / f"{name}.c").is_file():
        return "not in this source"
    shared = [one for one in _SHARED if (source / one).is_file()]
    includes = [
        f"-isystem{make.tree.build / 'usr/include'}",
        f"-isystem{make.tree.src / 'tools/include/uapi'}",
        f"-I{make.tree.src}",
        f"-I{source.parent}",  # kselftest.h, since Linux 7.0
    ]
    argv: list[str | Path] = [
        "gcc",
        *_FLAGS,
        *includes,
        "-o",
        folder / name,
        f"{name}.c",
        *shared,
        *_LIBRARIES,
    ]
    try:
        proc.run(argv, cwd=source, timeout_seconds=_COMPILE_SECONDS)
    except CommandError as error:
        lines = [line for line in error.output.splitlines() if "error" in line]
        return (lines or error.output.splitlines() or ["it does not compile"])[0][:_ERROR_COLUMNS]
    return None


def _program(name: str) -> Program:
    argv = (f"{_IN_GUEST}/{name}", *_RUNS[name])
    if name in _NEEDS_HUGE_PAGES:
        pool = "/proc/sys/vm/nr_hugepages"
        words = f"echo {_HUGE_PAGES} > {pool}; {' '.join(argv)}; s=$?; echo 0 > {pool}; exit $s"
        argv = ("sh", "-c", words)
    return Program("selftests", name, argv, _TIMEOUT_SECONDS)
