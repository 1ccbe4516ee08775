"""Build the programs of workloads: C sources with the host's or a cross gcc, folders with make."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from labctl import proc
from labctl.arch import Architecture
from labctl.errors import CommandError
from labctl.guests.compiler import Compiler, build_error
from labctl.host import cgroup
from labctl.lab.models import Lab, Workload
from labctl.lab.paths import absolute, relative_hint
from labctl.lab.state import StateFolder
from labctl.lab.workload_entry import Build
from labctl.workloads.closure import Fault

_SECONDS = 1800.0
_FLAGS = ("-O2", "-static")


def build(lab: Lab, workload: Workload, entry: Build, arch: Architecture) -> Path:
    """Compile a workload's sources into one static program, unless they are unchanged.

    Raises:
        Fault: a source does not exist.
        BuildError: it does not compile.
        HostError: the compiler is not installed.
    """
    sources = [absolute(lab.root, source) for source in entry.sources]
    for source in sources:
        if not source.is_file():
            hint = relative_hint(lab.root)
            raise Fault(f"{source} not found", hint)
    compiler = Compiler.of(arch)
    flags = shlex.split(entry.flags)
    what = f"workload {workload.name}: {entry.program} does not compile"
    store = _store(lab)
    digest = hashlib.sha256("\0".join((*_FLAGS, *flags, compiler.version)).encode())
    try:
        # The preprocessed text has the headers, too.
        words = [compiler.name, "-E", *_FLAGS, *map(str, sources), *flags]
        digest.update(proc.run(words, cwd=lab.root, timeout_seconds=_SECONDS).stdout)
    except CommandError as error:
        raise build_error(error, what, store / f"{workload.name}.log") from error
    program = store / f"{entry.program}-{digest.hexdigest()[:16]}"
    compiler.build(program, _FLAGS, [*map(str, sources), *flags], lab.root, what)
    return program


def make(lab: Lab, workload: Workload, folder: str, arch: Architecture) -> None:
    """Run make in a folder of the host; for a foreign architecture with its compiler, static.

    Raises:
        Fault: the folder does not exist.
        BuildError: make fails.
        HostError: make or the compiler is not installed.
    """
    place = absolute(lab.root, folder)
    if not place.is_dir():
        hint = relative_hint(lab.root)
        raise Fault(f"folder {place} not found", hint)
    cross = [f"CC={Compiler.of(arch).name}", "LDFLAGS=-static"] if arch.is_foreign else []
    try:
        words = ["make", f"-j{cgroup.jobs()}", *cross]
        proc.run(words, cwd=place, timeout_seconds=_SECONDS)
    except CommandError as error:
        what = f"workload {workload.name}: make fails in {place}"
        raise build_error(error, what, _store(lab) / f"{workload.name}.log") from error


def _store(lab: Lab) -> Path:
    store = StateFolder(lab.state).initramfs / "workloads"
    store.mkdir(parents=True, exist_ok=True)
    return store
